"""Consumer groups under random members, restarts, coordinators that change, from one seed."""

import os
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.assignors import Place
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.group_pages import ConsumerPage, decode
from robustmq.kafka.messages.consumer_groups import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    TopicPartitions,
)
from robustmq.kafka.messages.group_offsets import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchResponse,
)
from robustmq.kafka.messages.groups import (
    HeartbeatRequest,
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    JoinGroupResponse,
    SyncGroupRequest,
    SyncGroupRequestAssignment,
    SyncGroupResponse,
)
from robustmq.kafka.schema import Message
from tests.group_world import GroupWorld, Host

SEEDS = range(int(os.environ.get("ROBUSTMQ_SEEDS", "12")))
PARTITIONS = 5
STEPS = 1_500

RETRY = {
    ErrorCode.NOT_COORDINATOR,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
}


class Truth:
    """What members have seen: who owned what in which generation, and what was acknowledged."""

    def __init__(self) -> None:
        self.owners: dict[tuple[int, int], str] = {}
        self.acknowledged: dict[int, int] = {}
        self.last_commit = 0

    def owns(self, generation: int, number: int, owner: str) -> None:
        assert self.owners.setdefault((generation, number), owner) == owner

    def committed(self, number: int, offset: int) -> None:
        self.acknowledged[number] = max(offset, self.acknowledged.get(number, 0))


class Client:
    """One request at a time; a connection that breaks gives no answer."""

    def __init__(self, world: GroupWorld, truth: Truth, name: str) -> None:
        self.world = world
        self.truth = truth
        self.name = name
        self.node = world.leader or 0
        """Whom it takes for the coordinator, until it is told that it is not."""
        self._host: Host | None = None
        self._answers: list[Any] = []
        self._then: Callable[[Any], None] | None = None

    @property
    def is_waiting(self) -> bool:
        return self._then is not None

    def send(self, api: int, version: int, request: Message, then: Callable[[Any], None]) -> None:
        self._host = self.world.hosts[self.node]
        self._then = then
        self._answers = self.world.send(api, version, request, self._host)

    def look(self) -> None:
        """Take an answer, or learn that there will be none."""
        then = self._then
        if then is None:
            return
        if self._answers:
            self._then = None
            then(self._answers[0])
        elif self._host not in self.world.hosts:
            self.give_up()

    def seek(self) -> None:
        """Ask for the coordinator."""
        self.node = self.world.leader or 0

    def give_up(self) -> None:
        self._then = None
        self.seek()
        self.lost()

    def lost(self) -> None:
        """It is not known whether the last request was done."""

    def act(self) -> None:
        """Send what is next."""

    def commit(self, number: int, member_id: str, generation: int) -> None:
        self.truth.last_commit += 1
        offset = self.truth.last_commit
        partition = OffsetCommitRequestPartition(partition_index=number, committed_offset=offset)
        request = OffsetCommitRequest(
            group_id="g",
            generation_id_or_member_epoch=generation,
            member_id=member_id,
            topics=[OffsetCommitRequestTopic(name="t", partitions=[partition])],
        )

        def answered(response: OffsetCommitResponse) -> None:
            error = response.topics[0].partitions[0].error_code
            if error:
                self.refused(error)
            else:
                self.truth.committed(number, offset)

        self.send(ApiKey.OFFSET_COMMIT, 9, request, answered)

    def refused(self, error: int) -> None:
        raise NotImplementedError


class ClassicMember(Client):
    """Joins, syncs (and assigns, if it leads), sends heartbeats, commits."""

    def __init__(self, world: GroupWorld, truth: Truth, name: str, rng: random.Random) -> None:
        super().__init__(world, truth, name)
        self.rng = rng
        self.member_id = ""
        self.generation = -1
        self.owned: list[int] = []
        self.members: list[str] = []
        self.phase = "join"

    def act(self) -> None:
        if self.phase == "join":
            self._join()
        elif self.phase == "sync":
            self._sync()
        elif self.owned and self.rng.random() < 0.5:
            self.commit(self.rng.choice(self.owned), self.member_id, self.generation)
        else:
            request = HeartbeatRequest(
                group_id="g", generation_id=self.generation, member_id=self.member_id
            )
            self.send(ApiKey.HEARTBEAT, 4, request, lambda r: self.refused(r.error_code))

    def lost(self) -> None:
        if self.phase == "sync":
            self.phase = "join"

    def refused(self, error: int) -> None:
        if error in RETRY:
            self.seek()
        if error in RETRY or not error:
            return
        if error != ErrorCode.REBALANCE_IN_PROGRESS:
            self.owned = []
            self.generation = -1
            if error == ErrorCode.UNKNOWN_MEMBER_ID:
                self.member_id = ""
        self.phase = "join"

    def _join(self) -> None:
        protocol = JoinGroupRequestProtocol(name="range", metadata=self.name.encode())
        request = JoinGroupRequest(
            group_id="g",
            session_timeout_ms=10_000,
            rebalance_timeout_ms=5_000,
            member_id=self.member_id,
            protocol_type="consumer",
            protocols=[protocol],
        )
        self.owned = []
        self.send(ApiKey.JOIN_GROUP, 9, request, self._joined)

    def _joined(self, response: JoinGroupResponse) -> None:
        if response.error_code == ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = response.member_id
        elif response.error_code:
            self.refused(response.error_code)
        else:
            self.generation = response.generation_id
            self.members = [each.member_id for each in response.members]
            self.phase = "sync"

    def _sync(self) -> None:
        numbers = list(range(PARTITIONS))
        self.rng.shuffle(numbers)
        assignments = [
            SyncGroupRequestAssignment(
                member_id=member,
                assignment=msgspec.msgpack.encode(numbers[index :: len(self.members)]),
            )
            for index, member in enumerate(self.members)
        ]
        request = SyncGroupRequest(
            group_id="g",
            generation_id=self.generation,
            member_id=self.member_id,
            assignments=assignments,
        )
        self.send(ApiKey.SYNC_GROUP, 5, request, self._synced)

    def _synced(self, response: SyncGroupResponse) -> None:
        if response.error_code:
            self.phase = "join"
            self.refused(response.error_code)
            return
        self.owned = msgspec.msgpack.decode(response.assignment, type=list[int])
        self.phase = "stable"
        for number in self.owned:
            self.truth.owns(self.generation, number, self.member_id)


class ConsumerMember(Client):
    """Sends heartbeats, lets go what it is told to, commits."""

    def __init__(self, world: GroupWorld, truth: Truth, name: str, rng: random.Random) -> None:
        super().__init__(world, truth, name)
        self.rng = rng
        self.epoch = 0
        self.owned: frozenset[tuple[bytes, int]] = frozenset()
        self.is_whole = True

    @property
    def phase(self) -> str:
        return "stable" if self.epoch and not self.is_whole else "join"

    def act(self) -> None:
        if self.owned and self.epoch > 0 and self.rng.random() < 0.3:
            _, number = self.rng.choice(sorted(self.owned))
            self.commit(number, self.name, self.epoch)
            return
        request = ConsumerGroupHeartbeatRequest(
            group_id="g", member_id=self.name, member_epoch=self.epoch
        )
        if self.is_whole or self.rng.random() < 0.5:
            request.rebalance_timeout_ms = 5_000
            request.subscribed_topic_names = ["t"]
            request.topic_partitions = [
                TopicPartitions(topic_id=topic, partitions=[number])
                for topic, number in sorted(self.owned)
            ]
        self.send(ApiKey.CONSUMER_GROUP_HEARTBEAT, 1, request, self._beaten)

    def lost(self) -> None:
        self.is_whole = True

    def refused(self, error: int) -> None:
        if error in RETRY or error == ErrorCode.STALE_MEMBER_EPOCH:
            self.seek()
            self.is_whole = True
            return
        self.epoch, self.owned, self.is_whole = 0, frozenset(), True

    def _beaten(self, response: ConsumerGroupHeartbeatResponse) -> None:
        if response.error_code:
            self.refused(response.error_code)
            return
        self.epoch = response.member_epoch
        self.is_whole = False
        if response.assignment is not None:
            self.owned = frozenset(
                (each.topic_id, number)
                for each in response.assignment.topic_partitions
                for number in each.partitions
            )


class Simulation:
    def __init__(self, seed: int, kind: type[ClassicMember] | type[ConsumerMember]) -> None:
        self.rng = random.Random(seed)
        self.world = GroupWorld({"t": PARTITIONS})
        self.truth = Truth()
        self.kind = kind
        self.born = 0
        self.moved_ms = 0
        self.fetches: list[tuple[dict[int, int], list[Any]]] = []
        self.clients: list[ClassicMember | ConsumerMember] = []
        for _ in range(3):
            self.add()

    def add(self) -> None:
        self.born += 1
        self.clients.append(self.kind(self.world, self.truth, f"m{self.born}", self.rng))

    def step(self, *, is_calm: bool) -> None:
        roll = self.rng.random()
        if roll < 0.03:
            self.world.learn(self.rng.randrange(2))
        elif roll < 0.06:
            self.fetch()
        elif roll < 0.45:
            client = self.rng.choice(self.clients)
            client.look()
            if not client.is_waiting:
                client.act()
            elif not is_calm and self.rng.random() < 0.02:
                client.give_up()
        elif roll < 0.85:
            self.rng.choice(self.world.hosts).ledger.step()
        elif roll < 0.985 or is_calm:
            self.world.wait(self.rng.randrange(1, 200)) if is_calm else self.pass_time()
        else:
            self.disturb()

    def fetch(self) -> None:
        """Read the offsets where the coordinator is, by what it knows: nothing is missing."""
        for required, answers in self.fetches:
            if answers and not answers[0].groups[0].error_code:
                self.check_offsets(required, answers[0])
        host = self.world.host
        self.fetches = [each for each in self.fetches if not each[1]][-10:]
        if host.cluster.lives == self.world.lives:
            required = dict(self.truth.acknowledged)
            request = OffsetFetchRequest(
                groups=[OffsetFetchRequestGroup(group_id="g", topics=None)]
            )
            answers = self.world.send(ApiKey.OFFSET_FETCH, 9, request, host)
            self.fetches.append((required, answers))

    def check_offsets(self, required: dict[int, int], response: OffsetFetchResponse) -> None:
        read = {
            each.partition_index: each.committed_offset
            for topic in response.groups[0].topics
            for each in topic.partitions
        }
        assert all(read.get(number, -1) >= offset for number, offset in required.items())

    def pass_time(self) -> None:
        """Time goes on, and the ledger does not."""
        self.world.now_ms += self.rng.randrange(1, 300)
        if self.world.now_ms > self.moved_ms + 5_000:
            self.world.learn(0)
            self.world.learn(1)
        for host in self.world.hosts:
            host.broker.turn.now_ms = self.world.now_ms
            host.broker.timers.run(self.world.now_ms)

    def disturb(self) -> None:
        roll = self.rng.random()
        if roll < 0.3:
            self.world.restart(self.rng.randrange(2))
        elif roll < 0.6:
            self.world.leader = self.rng.randrange(2)
            self.world.lives += 1
            self.moved_ms = self.world.now_ms
        elif roll < 0.8 and len(self.clients) > 1:
            self.clients.remove(self.rng.choice(self.clients))
        elif len(self.clients) < 5:
            self.add()
        if self.kind is ConsumerMember:
            self.check_owners()

    def check_owners(self) -> None:
        """Nobody who is in the group believes to have what another has."""
        key = self.world.key("g")
        page = self.world.store.pages.get(key)
        if page is None or page.value is None:
            return
        owners: dict[Place, str] = {}
        known = decode(page.value)
        assert isinstance(known, ConsumerPage)
        members = {member.id: member for member in known.members}
        for member in known.members:
            for place in member.places | member.revoking:
                assert owners.setdefault(place, member.id) == member.id
        for client in self.clients:
            member_ = members.get(client.name)
            if isinstance(client, ConsumerMember) and member_ is not None and client.epoch:
                assert client.owned <= member_.places | member_.revoking

    def is_whole(self) -> bool:
        """All are in one generation, and everything is somebody's."""
        if any(client.phase != "stable" for client in self.clients):
            return False
        if len({_generation(client) for client in self.clients}) > 1:
            return False
        return sum(len(client.owned) for client in self.clients) == PARTITIONS


def _generation(client: ClassicMember | ConsumerMember) -> int:
    return client.generation if isinstance(client, ClassicMember) else client.epoch


@pytest.mark.parametrize("kind", [ClassicMember, ConsumerMember])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_group_under_disturbances(
    seed: int, kind: type[ClassicMember] | type[ConsumerMember]
) -> None:
    simulation = Simulation(seed, kind)
    for _ in range(STEPS):
        simulation.step(is_calm=False)
    world = simulation.world
    world.lead(simulation.rng.randrange(2))
    for _ in range(40_000):
        simulation.step(is_calm=True)
        if simulation.is_whole():
            break
    assert simulation.is_whole()
    for _ in range(300):
        simulation.step(is_calm=True)
    world.settle()
    request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id="g", topics=None)])
    response = world.ask(ApiKey.OFFSET_FETCH, 9, request, OffsetFetchResponse)
    assert simulation.truth.acknowledged
    simulation.check_offsets(simulation.truth.acknowledged, response)
