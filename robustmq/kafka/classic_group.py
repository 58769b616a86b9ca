"""A consumer group of the classic protocol: its members assign the partitions (KIP-62, 345, 394).

Its page is written when a generation begins, before anybody hears its number, and when the
leader has assigned the partitions, before anybody hears of its own; further when a static member
has a new id, and when the last member is gone. So no generation is there twice, nobody owns
anything in a generation that a later coordinator does not know, and whoever loads the page goes
on where it stands: members come back with their ids and generation, and nothing is rebalanced.
Heartbeats, and members that come and go until a generation begins, write nothing: a later
coordinator finds out by itself who is not there any more.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.group_keeper import Keeper
from robustmq.kafka.group_members import Asker, Member, Members, Protocols
from robustmq.kafka.group_pages import ClassicPage, State
from robustmq.kafka.messages.groups import (
    JoinGroupRequest,
    JoinGroupResponse,
    JoinGroupResponseMember,
    SyncGroupRequest,
    SyncGroupResponse,
)
from robustmq.settings.kafka_groups import KafkaGroups

Joined: TypeAlias = Callable[[JoinGroupResponse], None]
Synced: TypeAlias = Callable[[SyncGroupResponse], None]


class _Arrival(NamedTuple):
    """A JoinGroup that is being looked at."""

    request: JoinGroupRequest
    protocols: Protocols
    asker: Asker
    reply: Joined


class ClassicGroup:
    """The state machine of one group; `close` is the end of this object, not of the group."""

    def __init__(self, page: ClassicPage, keeper: Keeper, settings: KafkaGroups) -> None:
        self.state = page.state
        self.generation = page.generation
        self.protocol_type = page.protocol_type
        self.protocol = page.protocol
        self.since_ms = page.since_ms
        self.members = Members(page.members, page.leader)
        self._keeper = keeper
        self._settings = settings
        self._pending: dict[str, int] = {}
        self._deadlines: dict[str, int] = {}
        self._joins: dict[str, Joined] = {}
        self._syncs: dict[str, Synced] = {}
        self._synced: set[str] = set()
        self._until_ms = 0
        self._delay_until_ms = 0
        self._newcomers = False
        self._resume()

    @property
    def page(self) -> ClassicPage:
        """What is to be kept."""
        return ClassicPage(
            self.state,
            self.generation,
            self.protocol_type,
            self.protocol,
            self.members.leader,
            list(self.members),
            self.since_ms,
        )

    @property
    def is_empty(self) -> bool:
        """Whether it has no members, nor anybody who is about to become one."""
        return self.state == State.EMPTY and not self._pending

    def close(self, error: ErrorCode) -> None:
        """Answer everybody who waits; whoever keeps the group forgets it."""
        for member_id in list(self._joins):
            self._refuse_join(member_id, error)
        self._refuse_syncs(error)

    def join(self, request: JoinGroupRequest, asker: Asker, reply: Joined) -> None:
        """JoinGroup: become a member, or be one in the next generation; answered when it begins."""
        protocols = [(each.name, each.metadata) for each in request.protocols]
        error = self._join(_Arrival(request, protocols, asker, reply))
        if error:
            reply(refused_join(error, request.member_id))

    def _join(self, arrival: _Arrival) -> ErrorCode:
        request = arrival.request
        if not self._fits(arrival):
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        if not request.member_id:
            return self._newcomer(arrival)
        if request.member_id in self._pending:
            if self._is_full(arrival.protocols):
                return ErrorCode.GROUP_MAX_SIZE_REACHED
            del self._pending[request.member_id]
            self._admit(request.member_id, arrival)
            return ErrorCode.NONE
        error = self.check(request.member_id, request.group_instance_id)
        if not error:
            self._rejoin(arrival)
        return error

    def _fits(self, arrival: _Arrival) -> bool:
        request = arrival.request
        if not request.protocol_type or not arrival.protocols:
            return False
        if not self.members:
            return True
        known = request.member_id or self.members.static(request.group_instance_id)
        return request.protocol_type == self.protocol_type and self.members.agrees(
            arrival.protocols, without=known
        )

    def _is_full(self, protocols: Protocols) -> bool:
        if len(self.members) >= self._settings.max_members:
            return True
        told = sum(len(name) + len(metadata) for name, metadata in protocols)
        return self.members.size + told > self._settings.max_page_bytes

    def _newcomer(self, arrival: _Arrival) -> ErrorCode:
        request = arrival.request
        old_id = self.members.static(request.group_instance_id)
        is_crowded = len(self._pending) >= self._settings.max_members
        if old_id is None and (is_crowded or self._is_full(arrival.protocols)):
            return ErrorCode.GROUP_MAX_SIZE_REACHED
        member_id = self._keeper.new_id(request.group_instance_id or arrival.asker.client_id)
        if old_id is not None:
            self._replace(old_id, member_id, arrival)
        elif request.group_instance_id is None and arrival.asker.needs_id:
            self._pending[member_id] = self._keeper.now_ms + request.session_timeout_ms
            self._keeper.wake(self._pending[member_id])
            arrival.reply(refused_join(ErrorCode.MEMBER_ID_REQUIRED, member_id))
        else:
            self._admit(member_id, arrival)
        return ErrorCode.NONE

    def _admit(self, member_id: str, arrival: _Arrival) -> None:
        request, protocols, asker, reply = arrival
        if not self.members:
            self.protocol_type = request.protocol_type
        member = Member(
            member_id,
            request.group_instance_id,
            asker.client_id,
            asker.client_host,
            request.session_timeout_ms,
            _rebalance_timeout_ms(request),
            protocols,
        )
        self.members.add(member)
        self._newcomers = True
        self._wait_for_generation(member_id, reply)
        self._prepare()

    def _rejoin(self, arrival: _Arrival) -> None:
        """A member that is known: in the rebalance, or because something has changed for it."""
        request, protocols, _, reply = arrival
        member = self.members[request.member_id]
        is_follower = self.members.leader != member.id
        is_current = self.state == State.COMPLETING or (self.state == State.STABLE and is_follower)
        member.session_timeout_ms = request.session_timeout_ms
        member.rebalance_timeout_ms = _rebalance_timeout_ms(request)
        if is_current and member.protocols == protocols:
            self._touch(member)
            response = self._joined(member.id)
            self._keeper.settled(
                lambda error: reply(refused_join(error, member.id) if error else response)
            )
            return
        member.protocols = protocols
        self._wait_for_generation(member.id, reply)
        self._prepare()

    def _replace(self, old_id: str, member_id: str, arrival: _Arrival) -> None:
        """A static member is back with a new id, and whoever has the old one is fenced."""
        request, protocols, asker, reply = arrival
        self._refuse_join(old_id, ErrorCode.FENCED_INSTANCE_ID)
        self._refuse_sync(old_id, ErrorCode.FENCED_INSTANCE_ID)
        self._deadlines.pop(old_id, None)
        old_leader = self.members.leader
        member = self.members.rename(old_id, member_id)
        member.protocols = protocols
        member.client_id, member.client_host = asker.client_id, asker.client_host
        member.session_timeout_ms = request.session_timeout_ms
        member.rebalance_timeout_ms = _rebalance_timeout_ms(request)
        self._touch(member)
        if self.state != State.STABLE or self.members.choose() != self.protocol:
            self._wait_for_generation(member_id, reply)
            self._prepare()
            return
        response = self._joined(member_id)
        if asker.can_skip:
            response.skip_assignment = old_leader == old_id
        else:  # Who does not know the flag must not take itself for the leader, and assign.
            response.leader = old_leader or ""
            response.members = []
        self._keeper.keep(
            lambda error: reply(refused_join(error, member_id) if error else response)
        )

    def _wait_for_generation(self, member_id: str, reply: Joined) -> None:
        self._refuse_join(member_id, ErrorCode.REBALANCE_IN_PROGRESS)
        self._joins[member_id] = reply

    def _prepare(self) -> None:
        """Somebody has come, gone, or changed: all join again, unless they are at it."""
        if self.state == State.PREPARING:
            self._complete_if_all()
            return
        self._refuse_syncs(ErrorCode.REBALANCE_IN_PROGRESS)
        now = self._keeper.now_ms
        timeout = self.members.rebalance_timeout_ms
        delay = self._settings.initial_rebalance_delay_ms
        was_empty = self.state == State.EMPTY
        self.state = State.PREPARING
        self._until_ms = now + timeout
        self._delay_until_ms = now + min(delay, timeout) if was_empty and delay else 0
        self._newcomers = False
        self._keeper.wake(self._delay_until_ms or self._until_ms)
        self._complete_if_all()

    def _complete_if_all(self) -> None:
        if self._delay_until_ms or self._pending:
            return
        if all(member.id in self._joins for member in self.members):
            self._complete()

    def _complete(self) -> None:
        """Begin a generation with those who have joined, and static members that have not."""
        for member in list(self.members):
            if member.id not in self._joins and member.instance_id is None:
                self._forget(member.id)
        if self.members and self.members.leader not in self._joins:
            if not self._joins:
                self._wait_for_slowest()
                return
            self.members.elect(iter(self._joins))
        self._delay_until_ms = 0
        self.generation += 1
        self._keeper.rebalanced()
        self.protocol = self.members.choose()
        self._synced.clear()
        if not self.members:
            self._become_empty()
            return
        self.state = State.COMPLETING
        for member in self.members:
            member.assignment = b""
            if member.id in self._joins:
                self._touch(member)
        self._wait_for_slowest()
        joins, self._joins = self._joins, {}
        responses = {member_id: self._joined(member_id) for member_id in joins}

        def kept(error: ErrorCode) -> None:
            for member_id, reply in joins.items():
                reply(refused_join(error, member_id) if error else responses[member_id])

        self._keeper.keep(kept)

    def _become_empty(self) -> None:
        self.state = State.EMPTY
        self.since_ms = self._keeper.now_ms
        self._keeper.keep(_nobody_waits)

    def _joined(self, member_id: str) -> JoinGroupResponse:
        """The answer to a member of this generation; its leader is told who else is in it."""
        members = [
            JoinGroupResponseMember(
                member_id=member.id,
                group_instance_id=member.instance_id,
                metadata=member.metadata(self.protocol),
            )
            for member in (self.members if member_id == self.members.leader else ())
        ]
        return JoinGroupResponse(
            generation_id=self.generation,
            protocol_type=self.protocol_type,
            protocol_name=self.protocol,
            leader=self.members.leader or "",
            member_id=member_id,
            members=members,
        )

    def sync(self, request: SyncGroupRequest, reply: Synced) -> None:
        """SyncGroup: bring (the leader) and fetch an assignment, when it is there."""
        error = self.check(request.member_id, request.group_instance_id)
        if not error and request.generation_id != self.generation:
            error = ErrorCode.ILLEGAL_GENERATION
        if not error and not self._is_same_protocol(request):
            error = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        if not error and self.state == State.PREPARING:
            error = ErrorCode.REBALANCE_IN_PROGRESS
        given = sum(len(each.assignment) for each in request.assignments)
        if not error and self.members.size + given > self._settings.max_page_bytes:
            error = ErrorCode.GROUP_MAX_SIZE_REACHED
        if error:
            reply(SyncGroupResponse(error_code=error))
            return
        member = self.members[request.member_id]
        self._touch(member)
        if self.state == State.STABLE:
            self._keeper.settled(self._assigned(member.assignment, reply))
            return
        self._refuse_sync(member.id, ErrorCode.REBALANCE_IN_PROGRESS)
        self._syncs[member.id] = reply
        self._synced.add(member.id)
        if member.id == self.members.leader:
            self._assign(request)

    def _is_same_protocol(self, request: SyncGroupRequest) -> bool:
        return (request.protocol_type or self.protocol_type) == self.protocol_type and (
            request.protocol_name or self.protocol
        ) == self.protocol

    def _assign(self, request: SyncGroupRequest) -> None:
        given = {each.member_id: each.assignment for each in request.assignments}
        for member in self.members:
            member.assignment = given.get(member.id, b"")
        self.state = State.STABLE
        syncs, self._syncs = self._syncs, {}
        answers = [
            self._assigned(self.members[member_id].assignment, reply)
            for member_id, reply in syncs.items()
        ]

        def kept(error: ErrorCode) -> None:
            for answer in answers:
                answer(error)

        self._keeper.keep(kept)

    def _assigned(self, assignment: bytes, reply: Synced) -> Callable[[ErrorCode], None]:
        """The answer with an assignment of this generation, for when it is kept."""
        response = SyncGroupResponse(
            protocol_type=self.protocol_type, protocol_name=self.protocol, assignment=assignment
        )
        return lambda error: reply(SyncGroupResponse(error_code=error) if error else response)

    def check(self, member_id: str, instance_id: str | None) -> ErrorCode:
        """Say what is wrong with who a member says it is."""
        if instance_id is not None:
            current = self.members.static(instance_id)
            if current is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if current != member_id:
                return ErrorCode.FENCED_INSTANCE_ID
        return ErrorCode.NONE if member_id in self.members else ErrorCode.UNKNOWN_MEMBER_ID

    def heartbeat(self, member_id: str, instance_id: str | None, generation: int) -> ErrorCode:
        """Heartbeat: say whether a member may go on, or has to join again."""
        error = self.check(member_id, instance_id)
        if not error and generation != self.generation:
            error = ErrorCode.ILLEGAL_GENERATION
        if error:
            return error
        self._touch(self.members[member_id])
        if self.state == State.PREPARING:
            return ErrorCode.REBALANCE_IN_PROGRESS
        return ErrorCode.NONE

    def may_commit(self, member_id: str, instance_id: str | None, generation: int) -> ErrorCode:
        """Say whether somebody may commit offsets; a member that does is alive."""
        if generation < 0 and not member_id and instance_id is None:
            return ErrorCode.NONE if not self.members else ErrorCode.UNKNOWN_MEMBER_ID
        if generation < 0 and not self.members:
            return ErrorCode.NONE
        error = self.check(member_id, instance_id)
        if not error and generation != self.generation:
            error = ErrorCode.ILLEGAL_GENERATION
        if not error and self.state == State.COMPLETING:
            error = ErrorCode.REBALANCE_IN_PROGRESS
        if not error:
            self._touch(self.members[member_id])
        return error

    def leave(self, member_id: str, instance_id: str | None) -> ErrorCode:
        """LeaveGroup: let a member go, a static one also by its instance alone."""
        if instance_id is not None and not member_id:
            member_id = self.members.static(instance_id) or ""
        if member_id in self._pending:
            del self._pending[member_id]
            if self.state == State.PREPARING:
                self._complete_if_all()
            return ErrorCode.NONE
        error = self.check(member_id, instance_id)
        if not error:
            self._remove([member_id])
        return error

    def due(self) -> None:
        """Some time is over: of members that were not heard of, or of a rebalance."""
        now = self._keeper.now_ms
        for member_id in [each for each, until in self._pending.items() if until <= now]:
            del self._pending[member_id]
        for member_id in (*self._joins, *self._syncs):
            self._touch(self.members[member_id])
        self._remove([each for each, until in self._deadlines.items() if until <= now])
        if self.state == State.PREPARING:
            self._due_joins(now)
        elif self.state == State.COMPLETING and self._until_ms <= now:
            absent = [each.id for each in self.members if each.id not in self._synced]
            self._remove(absent)
        times = [*self._pending.values(), *self._deadlines.values()]
        if self.state in {State.PREPARING, State.COMPLETING}:
            times.append(self._delay_until_ms or self._until_ms)
        if times:
            self._keeper.wake(min(times))

    def _due_joins(self, now: int) -> None:
        if self._delay_until_ms and self._delay_until_ms <= now:
            if self._newcomers and now < self._until_ms:
                self._newcomers = False
                delay = self._settings.initial_rebalance_delay_ms
                self._delay_until_ms = min(now + delay, self._until_ms)
                return
            self._delay_until_ms = 0
        if self._until_ms <= now:
            self._complete()
        else:
            self._complete_if_all()

    def _remove(self, member_ids: list[str]) -> None:
        """Let members go who are gone; those that wait for an answer are here."""
        gone = [each for each in member_ids if each in self.members]
        if not gone:
            return
        for member_id in gone:
            self._forget(member_id)
        if self.state in {State.STABLE, State.COMPLETING}:
            self._prepare()
        else:
            self._complete_if_all()

    def _forget(self, member_id: str) -> None:
        self.members.remove(member_id)
        self._deadlines.pop(member_id, None)
        self._refuse_join(member_id, ErrorCode.UNKNOWN_MEMBER_ID)
        self._refuse_sync(member_id, ErrorCode.UNKNOWN_MEMBER_ID)

    def _wait_for_slowest(self) -> None:
        self._until_ms = self._keeper.now_ms + self.members.rebalance_timeout_ms
        self._keeper.wake(self._until_ms)

    def _touch(self, member: Member) -> None:
        deadline = self._keeper.now_ms + member.session_timeout_ms
        if member.id not in self._deadlines:
            self._keeper.wake(deadline)
        self._deadlines[member.id] = deadline

    def _resume(self) -> None:
        """Begin with a page: everybody in it has its time to come back."""
        if self.state == State.EMPTY:
            return
        self._wait_for_slowest()
        for member in self.members:
            self._touch(member)

    def _refuse_join(self, member_id: str, error: ErrorCode) -> None:
        reply = self._joins.pop(member_id, None)
        if reply is not None:
            reply(refused_join(error, member_id))

    def _refuse_sync(self, member_id: str, error: ErrorCode) -> None:
        reply = self._syncs.pop(member_id, None)
        if reply is not None:
            reply(SyncGroupResponse(error_code=error))

    def _refuse_syncs(self, error: ErrorCode) -> None:
        for member_id in list(self._syncs):
            self._refuse_sync(member_id, error)


def refused_join(error: ErrorCode, member_id: str) -> JoinGroupResponse:
    """Make the answer to a JoinGroup that was not granted."""
    return JoinGroupResponse(error_code=error, member_id=member_id, protocol_name="", leader="")


def _rebalance_timeout_ms(request: JoinGroupRequest) -> int:
    """Version 0 has none of its own: the session's."""
    timeout = request.rebalance_timeout_ms
    return timeout if timeout > 0 else request.session_timeout_ms


def _nobody_waits(error: ErrorCode) -> None:
    del error
