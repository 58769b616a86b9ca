"""Routes to one session, as opposed to those of a topic (`subscriptions`)."""

from robustmq._kernel.fanout import Group, Route
from robustmq._kernel.window import Window
from robustmq.broker.api import Options


def group_of(window: Window, options: Options) -> Group:
    """The group that has one window only, which wants its messages so."""
    return Group(
        window.version,
        options.qos,
        options.retain_as_published,
        options.no_local,
        options.identifier,
        [window],
    )


def route_to(window: Window, options: Options, origin: object = None) -> Route:
    """The route to one window; `origin` marks what it is given by it."""
    return Route([group_of(window, options)], [], 0, origin)
