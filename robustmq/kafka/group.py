"""A consumer group as its coordinator has it: members by one protocol or the other, offsets."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from robustmq import metrics
from robustmq.broker.api import Alarm
from robustmq.broker.ledger_api import Kept
from robustmq.kafka.classic_group import ClassicGroup
from robustmq.kafka.consumer_group import ConsumerGroup
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.group_ledger import GroupLedger
from robustmq.kafka.group_members import subscribed_topics
from robustmq.kafka.group_pages import (
    CONSUMER_TYPE,
    ClassicPage,
    ConsumerPage,
    GroupPage,
    State,
    encode,
)
from robustmq.kafka.protocol import Kafka


class Name(NamedTuple):
    """Whose group it is, what they call it, and the key of its page."""

    tenant: str
    group_id: str
    key: str


class Known(NamedTuple):
    """What the ledger has of a group; version 0: nothing."""

    page: GroupPage
    version: int
    rows: Mapping[str, Kept]


class Group:
    """One group: a `Keeper` for the state machine of its members, which may be replaced.

    `new_id(client_id)` makes ids of members; `lost` is told when somebody else coordinates it, or
    (NONE) when there is nothing left of it.
    """

    def __init__(
        self,
        kafka: Kafka,
        name: Name,
        known: Known,
        new_id: Callable[[str], str],
        lost: Callable[[ErrorCode], None],
    ) -> None:
        self.tenant, self.id, self.key = name
        self.seen_ms = kafka.now_ms
        """When it was seen last that nobody else has had it."""
        self.used_ms = kafka.now_ms
        self._kafka = kafka
        self._new_id = new_id
        self._lost = lost
        self._is_closed = False
        self._alarm = Alarm(kafka.at, self._due)
        page, version, rows = known
        self.ledger = GroupLedger(kafka.ledger, self.key, version, rows, self._page, self._gone)
        self.machine: ClassicGroup | ConsumerGroup = self._machine(page)

    # ------------------------------------------------------------------ for the state machine

    @property
    def now_ms(self) -> int:
        """See `Keeper`."""
        return self._kafka.now_ms

    def keep(self, then: Callable[[ErrorCode], None]) -> None:
        """See `Keeper`."""
        self.ledger.keep(then)

    def settled(self, then: Callable[[ErrorCode], None]) -> None:
        """See `Keeper`."""
        self.ledger.settled(then)

    def wake(self, when_ms: int) -> None:
        """See `Keeper`."""
        self._alarm.set(when_ms)

    def rebalanced(self) -> None:
        """See `Keeper`."""
        self._kafka.broker.turn.row[metrics.KAFKA_REBALANCES] += 1

    def new_id(self, client_id: str) -> str:
        """See `Keeper`."""
        return self._new_id(client_id)

    # ------------------------------------------------------------------ for the coordinator

    @property
    def exists(self) -> bool:
        """Whether it is more than a name that somebody has asked for."""
        return self.ledger.version > 0 or self.is_used

    @property
    def is_used(self) -> bool:
        """Whether it has members, or something of it is under way."""
        return not self.machine.is_empty or self.ledger.is_busy

    @property
    def state(self) -> State:
        """What it is at; DEAD: there is no such group."""
        return self.machine.state if self.exists else State.DEAD

    @property
    def protocol_type(self) -> str:
        """`consumer`, or what its members say that they are; "" when it never had any."""
        return self.machine.protocol_type

    def classic(self) -> ClassicGroup | None:
        """Its members by the classic protocol; None while there are others."""
        if isinstance(self.machine, ConsumerGroup) and self.machine.is_empty:
            page = self.machine.page
            self.machine = self._machine(ClassicPage(generation=page.epoch, since_ms=page.since_ms))
        return self.machine if isinstance(self.machine, ClassicGroup) else None

    def consumer(self) -> ConsumerGroup | None:
        """Its members whom the server assigns partitions to; None while there are others."""
        if isinstance(self.machine, ClassicGroup) and self.machine.is_empty:
            page = self.machine.page
            epoch = page.generation
            self.machine = self._machine(ConsumerPage(epoch, epoch, since_ms=page.since_ms))
        return self.machine if isinstance(self.machine, ConsumerGroup) else None

    def may_commit(
        self, member_id: str, instance_id: str | None, generation: int, *, knows_epochs: bool
    ) -> ErrorCode:
        """Say whether somebody may commit offsets; `knows_epochs`: with epochs of members."""
        if generation >= 0 and not self.exists:
            return ErrorCode.ILLEGAL_GENERATION
        if isinstance(self.machine, ClassicGroup):
            return self.machine.may_commit(member_id, instance_id, generation)
        if self.machine.members and not knows_epochs:
            return ErrorCode.UNSUPPORTED_VERSION
        return self.machine.may_commit(member_id, generation)

    def may_pend(self, member_id: str, instance_id: str | None, generation: int) -> ErrorCode:
        """Say whether a transaction may have offsets of the group: a member's, or anybody's."""
        if generation < 0 and not member_id and instance_id is None:
            return ErrorCode.NONE
        if isinstance(self.machine, ConsumerGroup):
            return self.machine.may_commit(member_id, generation)
        error = self.machine.check(member_id, instance_id)
        if not error and generation != self.machine.generation:
            error = ErrorCode.ILLEGAL_GENERATION
        return error

    def may_fetch(self, member_id: str | None, epoch: int) -> ErrorCode:
        """Say whether somebody may read offsets: as a member with its epoch, or as nobody."""
        is_member = member_id is not None and epoch >= 0
        if is_member and isinstance(self.machine, ConsumerGroup):
            return self.machine.may_commit(member_id or "", epoch)
        return ErrorCode.NONE

    @property
    def subscribed(self) -> set[str] | None:
        """The topics that some member subscribes to; None: its members do not say."""
        machine = self.machine
        if isinstance(machine, ConsumerGroup):
            return machine.subscribed
        if machine.members and machine.protocol_type != CONSUMER_TYPE:
            return None
        return {
            topic
            for member in machine.members
            for _, metadata in member.protocols
            for topic in subscribed_topics(metadata)
        }

    def close(self, error: ErrorCode) -> None:
        """Forget it here, and answer everybody who waits."""
        self._is_closed = True
        self.ledger.close(error)
        self.machine.close(error)

    def _machine(self, page: GroupPage) -> ClassicGroup | ConsumerGroup:
        settings = self._kafka.settings.groups
        if isinstance(page, ClassicPage):
            return ClassicGroup(page, self, settings)
        return ConsumerGroup(page, self, settings, self._kafka.catalog, self.tenant)

    def _page(self) -> bytes:
        return encode(self.machine.page)

    def _gone(self, error: ErrorCode) -> None:
        self.close(error)
        self._lost(error)

    def _due(self) -> None:
        if self._is_closed:
            return
        self.machine.due()
        if not self.exists:
            self._gone(ErrorCode.NONE)
