"""The members of a group of the classic protocol, and what they agree on."""

import struct
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

import msgspec

Protocols: TypeAlias = list[tuple[str, bytes]]
"""Assignors that a member has, the one that it likes best first, each with what it tells them."""


_SUBSCRIPTION: Final = struct.Struct(">hi")
_LENGTH: Final = struct.Struct(">H")


class Asker(NamedTuple):
    """Who joins, beside what it says: its version needs an id, or understands to skip."""

    client_id: str
    client_host: str
    needs_id: bool = True
    can_skip: bool = True


class Member(msgspec.Struct, array_like=True):
    """A member as its group's page keeps it; times are milliseconds.

    `instance_id` is of a static member (KIP-345), whose `id` is another one after each start.
    """

    id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: Protocols
    assignment: bytes = b""

    @property
    def size(self) -> int:
        """About its bytes in the page."""
        names = len(self.id) + len(self.client_id) + len(self.instance_id or "") + 64
        told = sum(len(name) + len(metadata) for name, metadata in self.protocols)
        return names + told + len(self.assignment)

    def metadata(self, protocol: str | None) -> bytes:
        """What it tells an assignor."""
        return next((told for name, told in self.protocols if name == protocol), b"")


class Members:
    """All members by id, the leader among them, and the ids of those that are static."""

    def __init__(self, members: list[Member], leader: str | None = None) -> None:
        self._members = {member.id: member for member in members}
        self._static = {m.instance_id: m.id for m in members if m.instance_id is not None}
        self.leader = leader if leader in self._members else None
        self._elect()

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def __contains__(self, member_id: str) -> bool:
        return member_id in self._members

    def __getitem__(self, member_id: str) -> Member:
        return self._members[member_id]

    def static(self, instance_id: str | None) -> str | None:
        """Return the id that a static member has now."""
        return None if instance_id is None else self._static.get(instance_id)

    @property
    def size(self) -> int:
        """About the bytes of all of them in a page."""
        return sum(member.size for member in self._members.values())

    @property
    def rebalance_timeout_ms(self) -> int:
        """How long the slowest may take to join again."""
        return max((member.rebalance_timeout_ms for member in self), default=0)

    def add(self, member: Member) -> None:
        """Add a member, or what it is now; the first is the leader."""
        self._members[member.id] = member
        if member.instance_id is not None:
            self._static[member.instance_id] = member.id
        self._elect()

    def remove(self, member_id: str) -> Member | None:
        """Remove a member; another leads if it did."""
        member = self._members.pop(member_id, None)
        if member is None:
            return None
        if member.instance_id is not None and self._static.get(member.instance_id) == member_id:
            del self._static[member.instance_id]
        self._elect()
        return member

    def rename(self, old_id: str, new_id: str) -> Member:
        """A static member is back and has a new id; leader it stays, and at its place."""
        member = self._members[old_id]
        self._members = {
            (new_id if each == old_id else each): kept for each, kept in self._members.items()
        }
        member.id = new_id
        if member.instance_id is not None:
            self._static[member.instance_id] = new_id
        if self.leader == old_id:
            self.leader = new_id
        return member

    def elect(self, candidates: Iterator[str]) -> bool:
        """Let the first of some members lead; False when there is none."""
        self.leader = next((each for each in candidates if each in self._members), self.leader)
        return self.leader is not None

    def agrees(self, protocols: Protocols, without: str | None = None) -> bool:
        """Say whether somebody with these assignors shares one with all (but for `without`)."""
        common = {name for name, _ in protocols}
        for member in self:
            if member.id != without:
                common &= {name for name, _ in member.protocols}
        return bool(common)

    def choose(self) -> str | None:
        """Return the assignor that all have and most like best; None without members."""
        common: set[str] | None = None
        for member in self:
            names = {name for name, _ in member.protocols}
            common = names if common is None else common & names
        if not common:
            return None
        votes = Counter(
            next(name for name, _ in member.protocols if name in common) for member in self
        )
        most = max(votes.values())
        return min(name for name, count in votes.items() if count == most)

    def _elect(self) -> None:
        if self.leader not in self._members:
            self.leader = next(iter(self._members), None)


def subscribed_topics(metadata: bytes) -> list[str]:
    """Read the topics of what a consumer tells assignors: version, then names (KIP-62).

    What is not understood subscribes to nothing.
    """
    try:
        _, count = _SUBSCRIPTION.unpack_from(metadata)
        at, found = _SUBSCRIPTION.size, []
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(metadata, at)
            at += _LENGTH.size
            found.append(metadata[at : at + length].decode())
            at += length
    except (struct.error, UnicodeDecodeError):
        return []
    return found
