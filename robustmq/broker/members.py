"""Who subscribes to one filter on a core: mostly one session, at times a million."""

from collections.abc import Iterable
from typing import TypeAlias

from robustmq._kernel.window import Window
from robustmq.broker.api import Options

Members: TypeAlias = tuple[Window, Options] | dict[Window, Options]
"""One is a pair, because there are millions of filters with one; more are a dict."""


def with_member(members: Members | None, window: Window, options: Options) -> Members:
    """Return the members with one added or changed; a dict is changed in place."""
    if members is None:
        return window, options
    if isinstance(members, tuple):
        if members[0] is window:
            return window, options
        members = {members[0]: members[1]}
    members[window] = options
    return members


def without_member(members: Members, window: Window) -> Members | None:
    """Return the members without one, None when nobody is left; a dict is changed in place."""
    if isinstance(members, tuple):
        return None if members[0] is window else members
    members.pop(window, None)
    return members or None


def is_member(members: Members | None, window: Window) -> bool:
    """Say whether a window is among them."""
    if isinstance(members, tuple):
        return members[0] is window
    return members is not None and window in members


def each_member(members: Members | None) -> Iterable[tuple[Window, Options]]:
    """Return all of them, in the order in which they came."""
    if members is None:
        return ()
    return (members,) if isinstance(members, tuple) else members.items()
