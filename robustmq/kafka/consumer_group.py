"""A consumer group whose server assigns the partitions: one state machine for all (KIP-848).

The group has an epoch, which grows with everything that concerns who should have what; a target
assignment of some epoch; and members, each on its way to what it is to have: first it lets go
what is another's (and stays in its epoch until it has said so), then it is given what is its own
and nobody else's. So no partition ever has two owners.

The page is written with everything that a member is to be told, before it is told. A heartbeat
that changes nothing writes nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

from robustmq.broker.catalog_api import Catalog
from robustmq.kafka.assignors import ASSIGNORS, Place, Subscriber
from robustmq.kafka.consumer_group_topics import Subscriptions, compiled
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.group_keeper import Keeper
from robustmq.kafka.group_pages import (
    CONSUMER_TYPE,
    Consumer,
    ConsumerPage,
    State,
    is_settled,
    state_of,
)
from robustmq.kafka.messages.consumer_groups import (
    Assignment,
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    TopicPartitions,
)
from robustmq.settings.kafka_groups import KafkaGroups

Beaten: TypeAlias = Callable[[ConsumerGroupHeartbeatResponse], None]

_LONGEST_ID: Final = 256
_JOIN: Final = 0
_LEAVE: Final = -1
_AWAY: Final = -2
_NOTHING: Final[frozenset[Place]] = frozenset()


class ConsumerGroup:
    """The members of one group; `close` is the end of this object, not of the group."""

    protocol_type: Final = CONSUMER_TYPE

    def __init__(
        self,
        page: ConsumerPage,
        keeper: Keeper,
        settings: KafkaGroups,
        catalog: Catalog,
        tenant: str,
    ) -> None:
        self.epoch = page.epoch
        self.target_epoch = page.target_epoch
        self.members = {member.id: member for member in page.members}
        self.since_ms = page.since_ms
        self.subscriptions = Subscriptions(catalog, tenant)
        self._partitions = dict(page.partitions)
        self._keeper = keeper
        self._settings = settings
        self._static = {m.instance_id: m.id for m in page.members if m.instance_id is not None}
        self._owners = {
            place: member.id for member in page.members for place in member.places | member.revoking
        }
        self._is_dirty = False
        """Whether something else than a member's own has changed since the page was written."""
        self._deadlines: dict[str, int] = {}
        self._revoke_by: dict[str, int] = {}
        for member in page.members:
            self._touch(member)
            self._mind_revoking(member)

    @property
    def page(self) -> ConsumerPage:
        """What is to be kept."""
        members = list(self.members.values())
        return ConsumerPage(self.epoch, self.target_epoch, members, self._partitions, self.since_ms)

    @property
    def is_empty(self) -> bool:
        """Whether it has no members."""
        return not self.members

    @property
    def state(self) -> State:
        """What it is at."""
        return state_of(self.page)

    @property
    def assignor(self) -> str:
        """The assignor that most members ask for."""
        asked = Counter(m.assignor for m in self.members.values() if m.assignor in ASSIGNORS)
        found = asked.most_common(1)
        return found[0][0] or "" if found else next(iter(ASSIGNORS))

    @property
    def subscribed(self) -> set[str]:
        """The names of the topics that some member subscribes to."""
        topics = {topic for each in self.members.values() for topic in self.subscriptions.of(each)}
        return {name for name in map(self.subscriptions.name, topics) if name is not None}

    def close(self, error: ErrorCode) -> None:
        """Nobody waits here."""

    # ------------------------------------------------------------------ heartbeats

    def heartbeat(
        self,
        request: ConsumerGroupHeartbeatRequest,
        client_id: str,
        client_host: str,
        reply: Beaten,
    ) -> None:
        """ConsumerGroupHeartbeat: come, stay, or go; what a member is told is kept before."""
        if request.member_epoch in {_LEAVE, _AWAY}:
            self._leave(request, reply)
            return
        error = self._check_join(request)
        error = error or self._check_epoch(request)
        if error:
            reply(refused(*error))
            return
        is_new = request.member_id not in self.members
        member = self._member(request)
        member.client_id, member.client_host = client_id[:_LONGEST_ID], client_host
        before = (member.epoch, member.places, member.revoking)
        has_changed = self._subscribe(member, request) or is_new
        self._refresh(has_changed)
        self._reconcile(member, _owned(request))
        self._touch(member)
        after = (member.epoch, member.places, member.revoking)
        has_changed = has_changed or after != before
        is_told = after != before or request.member_epoch != before[0] or _is_whole(request)
        response = self._response(member, is_told=is_told)

        def kept(error: ErrorCode) -> None:
            reply(refused(error, "") if error else response)

        (self._keeper.keep if has_changed or self._is_dirty else self._keeper.settled)(kept)
        self._is_dirty = False

    def may_commit(self, member_id: str, epoch: int) -> ErrorCode:
        """Say whether somebody may commit offsets, or read them as a member."""
        if epoch < 0 and not self.members:
            return ErrorCode.NONE
        member = self.members.get(member_id)
        if member is None:
            return ErrorCode.UNKNOWN_MEMBER_ID
        return ErrorCode.NONE if member.epoch == epoch else ErrorCode.STALE_MEMBER_EPOCH

    def due(self) -> None:
        """Members that were not heard of, or do not let go, are members no more."""
        now = self._keeper.now_ms
        silent = [each for each, until in self._deadlines.items() if until <= now]
        stubborn = [each for each, until in self._revoke_by.items() if until <= now]
        gone = {*silent, *stubborn}
        for member_id in gone:
            self._remove(member_id)
        if gone:
            self._keeper.keep(_nobody_waits)
        times = [*self._deadlines.values(), *self._revoke_by.values()]
        if times:
            self._keeper.wake(min(times))

    # ------------------------------------------------------------------ who it is

    def _check_join(self, request: ConsumerGroupHeartbeatRequest) -> tuple[ErrorCode, str] | None:
        """What is wrong with how a member describes itself."""
        regex = request.subscribed_topic_regex
        if regex and (len(regex.encode()) > self._settings.max_regex_bytes or not compiled(regex)):
            return ErrorCode.INVALID_REGULAR_EXPRESSION, (
                "the pattern is not one of RE2, or is longer than max_regex_bytes: correct it"
            )
        if request.server_assignor is not None and request.server_assignor not in ASSIGNORS:
            return ErrorCode.UNSUPPORTED_ASSIGNOR, (
                f"there is no such assignor: take one of {', '.join(ASSIGNORS)}"
            )
        is_growing = request.member_epoch == _JOIN or request.subscribed_topic_names is not None
        if is_growing and self._is_full(request):
            return ErrorCode.GROUP_MAX_SIZE_REACHED, (
                "the group has max_members members, or max_page_bytes bytes, already"
            )
        return None

    def _is_full(self, request: ConsumerGroupHeartbeatRequest) -> bool:
        """Whether a member that subscribes is one too many, or its topics are.

        A member takes about 400 bytes of the page beside its topics' names, a partition 60.
        """
        is_known = request.member_id in self.members or request.instance_id in self._static
        if not is_known and len(self.members) >= self._settings.max_members:
            return True
        others = (each.topics for each in self.members.values() if each.id != request.member_id)
        names = sum(len(name) for topics in others for name in topics)
        names += sum(len(name) for name in request.subscribed_topic_names or ())
        size = 400 * len(self.members) + 60 * sum(self._partitions.values()) + names
        return size > self._settings.max_page_bytes

    def _check_epoch(self, request: ConsumerGroupHeartbeatRequest) -> tuple[ErrorCode, str] | None:
        """Whether it is the member that it says, and knows what it was told."""
        is_join = request.member_epoch == _JOIN
        if request.instance_id is not None:
            current = self._static.get(request.instance_id or "")
            if current is not None and current != request.member_id:
                if not is_join:
                    return ErrorCode.FENCED_INSTANCE_ID, "another member has this instance id"
                if not self.members[current].is_away:
                    return ErrorCode.UNRELEASED_INSTANCE_ID, (
                        "another member has this instance id: close it, or wait for its timeout"
                    )
        if is_join:
            return None
        member = self.members.get(request.member_id)
        if member is None:
            return ErrorCode.UNKNOWN_MEMBER_ID, "the group has no such member: join again"
        if request.member_epoch == member.epoch and not member.is_away:
            return None
        owned = _owned(request)
        is_behind = request.member_epoch == member.previous_epoch and not member.is_away
        if is_behind and (owned is None or owned <= member.places):
            return None
        return ErrorCode.FENCED_MEMBER_EPOCH, (
            f"the member is in epoch {member.epoch}: let all partitions go, and join again"
        )

    def _member(self, request: ConsumerGroupHeartbeatRequest) -> Consumer:
        """The member, which may be new, or a static one that is back under another id."""
        member = self.members.get(request.member_id)
        away = self._static.get(request.instance_id or "")
        if member is None and away is not None:
            member = self.members.pop(away)
            self._deadlines.pop(away, None)
            self._revoke_by.pop(away, None)
            member.id = request.member_id
            self._own(member, member.places, _NOTHING)
            self._is_dirty = True
        elif member is None:
            member = Consumer(request.member_id, instance_id=request.instance_id)
        member.is_away = False
        self.members[member.id] = member
        if member.instance_id is not None:
            self._static[member.instance_id] = member.id
        return member

    def _subscribe(self, member: Consumer, request: ConsumerGroupHeartbeatRequest) -> bool:
        """Note what a member says of itself; True when that concerns who should have what."""
        before = (member.topics, member.regex, member.assignor, member.rack)
        if request.subscribed_topic_names is not None:
            member.topics = frozenset(request.subscribed_topic_names)
        if request.subscribed_topic_regex is not None:
            member.regex = request.subscribed_topic_regex
        if request.server_assignor is not None:
            member.assignor = request.server_assignor
        if request.rack_id is not None:
            member.rack = request.rack_id
        if request.rebalance_timeout_ms >= 0:
            member.rebalance_timeout_ms = request.rebalance_timeout_ms
        if before == (member.topics, member.regex, member.assignor, member.rack):
            return False
        self.subscriptions.forget(self.members.values())
        return True

    def _leave(self, request: ConsumerGroupHeartbeatRequest, reply: Beaten) -> None:
        member = self.members.get(request.member_id)
        current = self._static.get(request.instance_id or "")
        if request.instance_id is not None and current not in {None, request.member_id}:
            reply(refused(ErrorCode.FENCED_INSTANCE_ID, "another member has this instance id"))
            return
        if member is None:
            reply(refused(ErrorCode.UNKNOWN_MEMBER_ID, "the group has no such member"))
            return
        if request.member_epoch == _AWAY:
            member.is_away = True
            self._own(member, member.places, _NOTHING)
            self._revoke_by.pop(member.id, None)
        else:
            self._remove(member.id)
        response = ConsumerGroupHeartbeatResponse(
            member_id=request.member_id, member_epoch=request.member_epoch
        )
        self._keeper.keep(lambda error: reply(refused(error, "") if error else response))

    def _remove(self, member_id: str) -> None:
        member = self.members.pop(member_id)
        self._own(member, _NOTHING, _NOTHING)
        self._deadlines.pop(member_id, None)
        self._revoke_by.pop(member_id, None)
        if member.instance_id is not None and self._static.get(member.instance_id) == member_id:
            del self._static[member.instance_id]
        self.epoch += 1
        if not self.members:
            self.since_ms = self._keeper.now_ms
            self.target_epoch = self.epoch
            self._partitions = {}

    # ------------------------------------------------------------------ who gets what

    def _refresh(self, has_changed: bool) -> None:
        """Bring epoch and target up to the members, and to the topics that there are."""
        if has_changed or self.subscriptions.is_stale:
            partitions: dict[bytes, int] = {}
            for member in self.members.values():
                partitions.update(self.subscriptions.of(member))
            has_changed = has_changed or partitions != self._partitions
            self._partitions = partitions
        if has_changed:
            self.epoch += 1
        if self.epoch == self.target_epoch:
            return
        subscribers = {
            member.id: Subscriber(
                member.instance_id or member.id,
                frozenset(self.subscriptions.of(member)),
                member.target,
            )
            for member in self.members.values()
        }
        targets = ASSIGNORS[self.assignor](subscribers, self._partitions)
        for member in self.members.values():
            member.target = targets[member.id]
        self.target_epoch = self.epoch
        self._is_dirty = True
        self._keeper.rebalanced()

    def _reconcile(self, member: Consumer, owned: frozenset[Place] | None) -> None:
        """Bring a member one step further; `owned` is what it says that it reads, if it does."""
        if member.revoking:
            if owned is None or owned & member.revoking:
                return
            self._own(member, member.places, _NOTHING)
        if is_settled(member, self.target_epoch):
            self._mind_revoking(member)
            return
        staying = member.places & member.target
        leaving = member.places - staying
        if leaving and (owned is None or leaving & owned):
            self._own(member, staying, leaving)
            self._mind_revoking(member)
            return
        coming = {place for place in member.target - staying if self._is_free(place, member)}
        self._own(member, staying | coming, _NOTHING)
        if member.epoch != self.target_epoch:
            member.previous_epoch, member.epoch = member.epoch, self.target_epoch
        self._mind_revoking(member)

    def _is_free(self, place: Place, member: Consumer) -> bool:
        return self._owners.get(place, member.id) == member.id

    def _own(self, member: Consumer, places: frozenset[Place], revoking: frozenset[Place]) -> None:
        for place in member.places | member.revoking:
            self._owners.pop(place, None)
        member.places, member.revoking = places, revoking
        for place in places | revoking:
            self._owners[place] = member.id

    def _mind_revoking(self, member: Consumer) -> None:
        """A member has its rebalance timeout to let go."""
        if not member.revoking:
            self._revoke_by.pop(member.id, None)
        elif member.id not in self._revoke_by:
            self._revoke_by[member.id] = self._keeper.now_ms + member.rebalance_timeout_ms
            self._keeper.wake(self._revoke_by[member.id])

    def _touch(self, member: Consumer) -> None:
        deadline = self._keeper.now_ms + self._settings.consumer_session_timeout_ms
        if member.id not in self._deadlines:
            self._keeper.wake(deadline)
        self._deadlines[member.id] = deadline

    def _response(self, member: Consumer, *, is_told: bool) -> ConsumerGroupHeartbeatResponse:
        assignment = Assignment(topic_partitions=by_topic(member.places)) if is_told else None
        return ConsumerGroupHeartbeatResponse(
            member_id=member.id,
            member_epoch=member.epoch,
            heartbeat_interval_ms=self._settings.consumer_heartbeat_interval_ms,
            assignment=assignment,
        )


def by_topic(places: Iterable[Place]) -> list[TopicPartitions]:
    """Order partitions as messages have them."""
    found: dict[bytes, list[int]] = {}
    for topic_id, number in sorted(places):
        found.setdefault(topic_id, []).append(number)
    return [TopicPartitions(topic_id=each, partitions=numbers) for each, numbers in found.items()]


def refused(error: ErrorCode, detail: str) -> ConsumerGroupHeartbeatResponse:
    """Make the answer to a heartbeat that is not taken."""
    return ConsumerGroupHeartbeatResponse(error_code=error, error_message=detail or None)


def _is_whole(request: ConsumerGroupHeartbeatRequest) -> bool:
    """Whether a member says all of itself: it joins, or does not know whether it was heard."""
    if request.member_epoch == _JOIN:
        return True
    is_subscribing = (
        request.subscribed_topic_names is not None or request.subscribed_topic_regex is not None
    )
    has_all = request.rebalance_timeout_ms >= 0 and request.topic_partitions is not None
    return is_subscribing and has_all


def _owned(request: ConsumerGroupHeartbeatRequest) -> frozenset[Place] | None:
    """What a member says that it reads; None: nothing has changed."""
    if request.member_epoch == _JOIN:
        return _NOTHING
    owned: Sequence[TopicPartitions] | None = request.topic_partitions
    if owned is None:
        return None
    return frozenset((each.topic_id, number) for each in owned for number in each.partitions)


def _nobody_waits(error: ErrorCode) -> None:
    del error
