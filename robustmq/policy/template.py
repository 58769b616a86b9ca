"""Topics with names in them that stand for something of the client, as rules are written."""

from collections.abc import Sequence
from typing import Final

from robustmq.errors import Refusal, Refused
from robustmq.policy.principal import Principal
from robustmq.settings.topics import GROUP, PLACEHOLDER

_UNSAFE: Final = frozenset("+#/\0")
"""With one of these a name would be more than a part of a level."""


class Template:
    """`a/${clientid}/$1`: the client's names and the captures of a match are filled in.

    Without `captures` a `$1` stands for itself.
    """

    __slots__ = ("_parts", "has_names")

    def __init__(self, text: str, captures: bool = False) -> None:
        self._parts: list[str | int | tuple[str]] = []
        at = 0
        found = list(PLACEHOLDER.finditer(text))
        if captures:
            found = sorted((*found, *GROUP.finditer(text)), key=lambda each: each.start())
        for each in found:
            self._parts.append(text[at : each.start()])
            self._parts.append(int(each[1]) if each[1].isdigit() else (each[1],))
            at = each.end()
        self._parts.append(text[at:])
        self.has_names = any(isinstance(part, tuple) for part in self._parts)

    def fill(
        self, principal: Principal, captured: Sequence[str | None] = ()
    ) -> str | Refused | None:
        """Write the topic for a client; None when it has not got a name that is asked for.

        `captured` is the whole match and its groups. Refused for a name with a wildcard or a
        slash: its owner would reach topics that are not meant for it.
        """
        filled: list[str] = []
        for part in self._parts:
            if isinstance(part, str):
                filled.append(part)
            elif isinstance(part, int):
                filled.append(captured[part] or "")
            else:
                name = _name(principal, part[0])
                if not name:
                    return None
                if not _UNSAFE.isdisjoint(name):
                    return Refused(
                        Refusal.TOPIC_INVALID,
                        f"the client's {part[0]} contains +, # or /, so it cannot stand in a topic",
                    )
                filled.append(name)
        return "".join(filled)


def _name(principal: Principal, which: str) -> str | None:
    if which == "clientid":
        return principal.client_id
    return principal.username if which == "username" else principal.address
