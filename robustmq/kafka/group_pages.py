"""What of a consumer group must survive its coordinator: its page in the ledger."""

import enum
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from robustmq.kafka.assignors import Place
from robustmq.kafka.group_members import Member

CONSUMER_TYPE: Final = "consumer"
"""The protocol type of consumers; others (Connect's workers) say what they are."""


class State(enum.StrEnum):
    """What a group is at; the words that administrators see."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    ASSIGNING = "Assigning"
    RECONCILING = "Reconciling"
    STABLE = "Stable"
    DEAD = "Dead"


class ClassicPage(msgspec.Struct, tag="classic", array_like=True, frozen=True):
    """A group whose members assign; `since_ms` is when it was left empty, 0: it never had any."""

    state: State = State.EMPTY
    generation: int = 0
    protocol_type: str = ""
    protocol: str | None = None
    leader: str | None = None
    members: list[Member] = []
    since_ms: int = 0


class Consumer(msgspec.Struct, array_like=True):
    """A member of a group whose server assigns (KIP-848).

    `epoch` is the one that it was told last; `previous_epoch` the one before, which it has until
    it has heard of the other. It owns `places`, and `revoking` until it has said that it reads
    them no more; `target` is what it is to have in the end. `regex` is "" without a pattern.
    `is_away`: a static member that has left for a moment (epoch -2).
    """

    id: str
    instance_id: str | None = None
    rack: str | None = None
    client_id: str = ""
    client_host: str = ""
    rebalance_timeout_ms: int = 0
    topics: frozenset[str] = frozenset()
    regex: str = ""
    assignor: str | None = None
    epoch: int = 0
    previous_epoch: int = 0
    places: frozenset[Place] = frozenset()
    revoking: frozenset[Place] = frozenset()
    target: frozenset[Place] = frozenset()
    is_away: bool = False


class ConsumerPage(msgspec.Struct, tag="consumer", array_like=True, frozen=True):
    """A group whose server assigns: its epoch, that of the target, and what the target is for.

    `partitions` are the topics that somebody subscribes to, by id, and how many each has.
    """

    epoch: int = 0
    target_epoch: int = 0
    members: list[Consumer] = []
    partitions: dict[bytes, int] = {}
    since_ms: int = 0

    @property
    def protocol_type(self) -> str:
        """What such members are."""
        return CONSUMER_TYPE


GroupPage: TypeAlias = ClassicPage | ConsumerPage

encode: Final = msgspec.msgpack.Encoder().encode
decode: Final[Callable[[bytes], GroupPage]] = msgspec.msgpack.Decoder(GroupPage).decode
"""Bytes and back; raises msgspec.MsgspecError when they are no page."""


def state_of(page: GroupPage) -> State:
    """What a group is at, by its page."""
    if isinstance(page, ClassicPage):
        return page.state
    if not page.members:
        return State.EMPTY
    if page.epoch > page.target_epoch:
        return State.ASSIGNING
    if all(is_settled(member, page.target_epoch) for member in page.members):
        return State.STABLE
    return State.RECONCILING


def is_settled(member: Consumer, target_epoch: int) -> bool:
    """Say whether a member has what it is to have, and knows that."""
    is_there = member.epoch == target_epoch and not member.revoking
    return is_there and member.places == member.target
