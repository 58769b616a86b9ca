"""The topics as this core knows them: those made explicitly, and those that rules of the file make.

Explicit topics are records of the metadata group, which this is a fold of. Rows: `Y` name -> the
record of an explicit topic, so that its logs are opened as it says before the metadata is heard.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, Protocol

import msgspec

from robustmq.broker.catalog_api import Configured, Leader, Topic
from robustmq.broker.leaders import Leaders
from robustmq.broker.partition_api import Partition
from robustmq.broker.placement import Placement
from robustmq.broker.state import State
from robustmq.config import Config, TopicRule
from robustmq.errors import Refusal, Refused
from robustmq.message.core_number import global_core
from robustmq.message.tenancy import MARK, local, qualified, tenant_of
from robustmq.meta import records as meta
from robustmq.meta.commands import Expectation
from robustmq.meta.records import TOPIC, Record, encoded
from robustmq.policy.topic_rules import TopicRules
from robustmq.policy.topic_settings import ENGINE, ENGINES, configured, faults, rule_of, start_of

_NAME: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_MARK: Final = MARK.decode()[-1]
_ID_BYTES: Final = 16
TOPIC_ROWS: Final = (b"Y", b"Z")
"""Where the rows begin and end."""
_PERSON: Final = b"robustmq topic"

_record: Final = msgspec.msgpack.Decoder(tuple[int, dict[str, Any]])
_encoder: Final = msgspec.msgpack.Encoder()

Done = Callable[[Refused | None], None]


class Registrar(Protocol):
    """The way to the metadata of the cluster."""

    def change(
        self, records: Sequence[Record], expected: Sequence[Expectation], done: Done
    ) -> None:
        """Set and remove records, all or none; answered when this core knows what has changed."""

    def new_id(self) -> bytes:
        """Return 16 bytes that nobody else was ever given."""


class Rows(Protocol):
    """The durable rows of a core."""

    def walk(self, first: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield rows in the order of their keys."""


class Nobody:
    """A `Registrar` of a core that has no way to the metadata."""

    def change(
        self, records: Sequence[Record], expected: Sequence[Expectation], done: Done
    ) -> None:
        """Refuse."""
        del records, expected
        done(Refused(Refusal.UNAVAILABLE, "the metadata of the cluster is out of reach here"))

    def new_id(self) -> bytes:
        """There is no need for one."""
        return bytes(_ID_BYTES)


class Catalog:
    """A `catalog_api.Catalog`, and the fold of topics.

    `changed` hears of every topic that is new, other or gone, by the node's name: what it was and
    what it is. `registrar` is to be set before anything is made.
    """

    def __init__(self, config: Config, rules: TopicRules, placement: Placement) -> None:
        self.registrar: Registrar = Nobody()
        self.now_ms: Callable[[], int] = lambda: 0
        """The turn's clock; set by whoever has one."""
        self.changed: list[Callable[[bytes, Topic | None, Topic | None], None]] = []
        self.leaders = Leaders(config.broker_id, placement)
        self._config = config
        self._rules = rules
        self._placement = placement
        self._state: State | None = None
        self._explicit: dict[bytes, Topic] = {}
        self._raw: dict[bytes, tuple[int, dict[str, Any]]] = {}
        self._kept: dict[bytes, Topic] = {}
        self._ids: dict[bytes, bytes] = {}
        self._stale: set[bytes] = set()
        self._version = 0
        for rule in rules.named:
            name = rule.kafka_topic.encode()
            self._ids[_own_id(name)] = name
        self._shared = {rule.kafka_topic.encode(): rule for rule in rules.named}

    @property
    def version(self) -> int:
        """Another number whenever some topic or leader is another."""
        return hash((self._version, self.leaders.version, self._placement.digest))

    # ------------------------------------------------------------------ look-ups

    def find(self, tenant: str, name: str) -> Topic | None:
        """See `catalog_api.Catalog.find`."""
        if _MARK in name:
            # The names of tenants' topics are for the node alone.
            return None
        topic = self.of(qualified(tenant, name.encode()))
        separator = self._config.kafka_runtime.topic_separator
        if topic is None and separator and separator in name and "/" not in name:
            topic = self.of(qualified(tenant, name.replace(separator, "/").encode()))
        return topic

    def of(self, topic: bytes) -> Topic | None:
        """See `catalog_api.Catalog.of`."""
        found = self._explicit.get(topic) or self._kept.get(topic)
        if found is None and topic in self._shared:
            found = self._shared_topic(topic, self._shared[topic])
        return found

    def by_id(self, topic_id: bytes) -> Topic | None:
        """See `catalog_api.Catalog.by_id`."""
        name = self._ids.get(topic_id)
        return None if name is None else self.of(name)

    def written(self, topic: Topic) -> str:
        """See `catalog_api.Catalog.written`."""
        return local(topic.name).decode()

    def walk(self, tenant: str) -> Iterator[Topic]:
        """See `catalog_api.Catalog.walk`."""
        for name in sorted({*self._explicit, *self._kept, *self._shared}):
            if tenant_of(name) == tenant and (topic := self.of(name)) is not None:
                yield topic

    def leader(self, partition: Partition) -> Leader | None:
        """See `catalog_api.Catalog.leader`."""
        topic = self.of(partition.topic)
        if topic is None or not 0 <= partition.number < topic.partitions:
            return None
        if topic.is_shared:
            return self.leaders.of_shared(partition.number)
        if partition.topic in self._kept and partition.topic not in self._explicit:
            return self.leaders.here(partition)
        return self.leaders.of(partition)

    def core_of(self, partition: Partition) -> int | None:
        """See `catalog_api.Catalog.core_of`."""
        leader = self.leader(partition)
        if leader is None:
            return None
        own = self._placement.node is None or leader.node == self._placement.node
        return leader.core if own else global_core(leader.node, leader.core)

    def _shared_topic(self, name: bytes, rule: TopicRule) -> Topic:
        count = self.leaders.cores
        return Topic(name=name, id=_own_id(name), partitions=count, rule=rule, is_shared=True)

    # ------------------------------------------------------------------ changes

    def create(
        self,
        tenant: str,
        name: str,
        partitions: int,
        settings: Mapping[str, str],
        reply: Callable[[Topic | Refused], None],
    ) -> None:
        """See `catalog_api.Catalog.create`."""
        planned = self.plan(tenant, name, partitions, settings)
        if isinstance(planned, Refused):
            reply(planned)
            return
        topic = planned.name
        value = meta.Topic(
            tenant=tenant,
            storage_type=planned.rule.engine,
            partition=planned.partitions,
            config={**settings},
            id=self.registrar.new_id(),
            created_ms=self.now_ms(),
        )
        key = _key(topic)
        records = [Record(TOPIC, key, encoded(value))]
        records += self.leaders.placed(key, range(value.partition))

        def done(refused: Refused | None) -> None:
            made = self._explicit.get(topic)
            if refused is not None:
                reply(_conflict(refused, f"the topic {name} exists already"))
            else:
                gone = Refused(Refusal.CONFLICT, f"the topic {name} was removed meanwhile")
                reply(made if made is not None else gone)

        self.registrar.change(records, [Expectation(TOPIC, key, 0)], done)

    def plan(
        self, tenant: str, name: str, partitions: int, settings: Mapping[str, str]
    ) -> Topic | Refused:
        """See `catalog_api.Catalog.plan`."""
        topic = qualified(tenant, name.encode())
        if topic in self._explicit or topic in self._shared:
            return Refused(Refusal.CONFLICT, f"the topic {name} exists already")
        if wrong := self.check(name, {}):
            return Refused(Refusal.TOPIC_INVALID, wrong[0])
        if wrong := faults(settings):
            return Refused(Refusal.PAYLOAD_INVALID, wrong[0])
        if refused := self._too_many(partitions):
            return refused
        count = partitions if partitions > 0 else self._rules.of_file(topic).partitions
        return Topic(
            name=topic,
            id=bytes(_ID_BYTES),
            partitions=count or self._config.kafka_runtime.num_partitions,
            rule=rule_of(self._start(topic), settings),
            settings=settings,
        )

    def grow(self, topic: Topic, partitions: int, reply: Done) -> None:
        """See `catalog_api.Catalog.grow`."""
        refused = self._too_many(partitions)
        if refused is None and partitions <= topic.partitions:
            sentence = f"the topic has {topic.partitions} partitions; only more can be asked for"
            refused = Refused(Refusal.PAYLOAD_INVALID, sentence)
        if refused is not None:
            reply(refused)
            return
        more = self.leaders.placed(_key(topic.name), range(topic.partitions, partitions))
        self._change(topic, {"partition": partitions}, more, reply)

    def configure(self, topic: Topic, settings: Mapping[str, str], reply: Done) -> None:
        """See `catalog_api.Catalog.configure`."""
        if refused := self.judge(topic, settings):
            reply(refused)
        else:
            self._change(topic, {"config": {**settings}}, [], reply)

    def judge(self, topic: Topic, settings: Mapping[str, str]) -> Refused | None:
        """See `catalog_api.Catalog.judge`."""
        if wrong := faults(settings):
            return Refused(Refusal.PAYLOAD_INVALID, wrong[0])
        if rule_of(topic.rule, settings).engine != topic.rule.engine:
            sentence = f"{ENGINE} is chosen when a topic is made: make another topic"
            return Refused(Refusal.PAYLOAD_INVALID, sentence)
        return None

    def settings(self, topic: Topic | None) -> Iterator[Configured]:
        """See `catalog_api.Catalog.settings`."""
        kafka = self._config.kafka_runtime
        start = start_of(self._rules.default, kafka, True)
        if topic is None:
            yield from configured({}, start, start, kafka)
        else:
            yield from configured(topic.settings, topic.rule, start, kafka)

    def delete(self, topic: Topic, reply: Done) -> None:
        """See `catalog_api.Catalog.delete`."""
        known = self._raw.get(topic.name)
        if known is None or self._explicit[topic.name].id != topic.id:
            reply(_not_explicit(topic))
            return
        key = _key(topic.name)
        gone = [Record(TOPIC, key, None), *self.leaders.removed(key)]
        self.registrar.change(gone, [Expectation(TOPIC, key, known[0])], reply)

    def check(self, name: str, settings: Mapping[str, str]) -> Sequence[str]:
        """See `catalog_api.Catalog.check`."""
        wrong = faults(settings)
        if not _NAME.fullmatch(name) or name in {".", ".."}:
            wrong.insert(
                0,
                f"{name[:100]!r} cannot be the name of a topic: it has 1 to 249 letters, digits, "
                "., _ and -, and is neither . nor ..",
            )
        return wrong

    def _too_many(self, partitions: int) -> Refused | None:
        most = self._config.kafka_runtime.max_partitions
        if 1 <= partitions <= most or partitions == -1:
            return None
        sentence = f"a topic has 1 to {most} partitions (kafka_runtime.max_partitions)"
        return Refused(Refusal.QUOTA_EXCEEDED, sentence)

    def _change(
        self, topic: Topic, fields: Mapping[str, Any], more: Sequence[Record], reply: Done
    ) -> None:
        known = self._raw.get(topic.name)
        if known is None or self._explicit[topic.name].id != topic.id:
            reply(_not_explicit(topic))
            return
        changed, value = known
        key = _key(topic.name)
        records = [Record(TOPIC, key, encoded({**value, **fields})), *more]
        meanwhile = f"the topic {self.written(topic)} was changed meanwhile: try again"
        self.registrar.change(
            records,
            [Expectation(TOPIC, key, changed)],
            lambda refused: reply(refused and _conflict(refused, meanwhile)),
        )

    def _start(self, topic: bytes) -> TopicRule:
        file = self._rules.of_file(topic)
        is_default = file is self._rules.default
        return start_of(file, self._config.kafka_runtime, is_default)

    # ------------------------------------------------------------------ the fold

    def restore(self, state: State) -> None:
        """After a restart: know the explicit topics as they were, until the metadata is heard."""
        self._state = state
        self.recall(state)

    def recall(self, rows: Rows) -> None:
        """Know the explicit topics that rows of a core tell of."""
        for key, value in list(rows.walk(*TOPIC_ROWS)):
            changed, raw = _record.decode(value)
            self._set(key[1:], changed, raw)

    def clear(self) -> None:
        """All records follow: what is not among them is gone (`settle`)."""
        self._stale = {*self._explicit}

    def apply(self, name: str, value: dict[str, Any] | None, changed: int = 0) -> None:
        """Learn of a record; raises ValueError when it is no topic."""
        tenant, _, written = name.partition("/")
        topic = qualified(tenant, written.encode())
        self._stale.discard(topic)
        if value is None:
            self._remove(topic)
            return
        self._set(topic, changed, value)
        if self._state is not None:
            self._state.put(b"Y" + topic, _encoder.encode((changed, value)))

    def settle(self) -> None:
        """All records of a message are folded."""
        stale, self._stale = self._stale, set()
        for topic in stale:
            self._remove(topic)

    def _set(self, name: bytes, changed: int, value: dict[str, Any]) -> None:
        record = msgspec.convert(value, meta.Topic)
        settings = {key: str(each) for key, each in record.config.items()}
        # What a newer version has set and this one does not know is kept, and has no effect.
        usable = {key: each for key, each in settings.items() if not faults({key: each})}
        start = self._start(name)
        engine = ENGINES.get(record.storage_type, start.engine)
        rule = rule_of(msgspec.structs.replace(start, engine=engine), usable)
        self._raw[name] = (changed, value)
        self._tell(
            name,
            Topic(
                name=name,
                id=record.id or _own_id(name),
                partitions=record.partition,
                rule=rule,
                settings=settings,
            ),
        )

    def _remove(self, name: bytes) -> None:
        self._raw.pop(name, None)
        if self._state is not None:
            self._state.delete(b"Y" + name)
        self._tell(name, None)

    def _tell(self, name: bytes, topic: Topic | None) -> None:
        before = self._explicit.pop(name, None)
        if topic is not None:
            self._explicit[name] = topic
        if before == topic:
            return
        self._version += 1
        if before is not None:
            self._ids.pop(before.id, None)
        if topic is not None:
            self._ids[topic.id] = name
        self._rules.hold(name, None if topic is None else topic.rule)
        for hear in self.changed:
            hear(name, before, topic)

    def keeps(self, name: bytes, is_there: bool) -> None:
        """Learn that a core of this node has a log of a topic's own, or has it no more.

        Where a rule of the file wants it that is a topic, whoever made none of that name.
        """
        if not is_there:
            if self._kept.pop(name, None) is not None:
                self._ids.pop(_own_id(name), None)
                self._version += 1
        elif name not in self._kept and (rule := self._rules.of_file(name)).own_shard:
            self._kept[name] = Topic(name=name, id=_own_id(name), partitions=1, rule=rule)
            self._ids[_own_id(name)] = name
            self._version += 1


def _key(name: bytes) -> str:
    """The name of an explicit topic's record."""
    return f"{tenant_of(name)}/{local(name).decode()}"


def _own_id(name: bytes) -> bytes:
    """The id of a topic that nobody has made: always the same."""
    return blake2b(name, digest_size=_ID_BYTES, person=_PERSON).digest()


def _not_explicit(topic: Topic) -> Refused:
    return Refused(
        Refusal.NOT_AUTHORIZED,
        f"the topic {local(topic.name).decode()} was not made by a client, or is gone: a rule of "
        "[[topic_rules]] in the configuration says how it is kept",
    )


def _conflict(refused: Refused, sentence: str) -> Refused:
    """What was expected of the records did not hold."""
    if refused.code is Refusal.NOT_AUTHORIZED:
        return Refused(Refusal.CONFLICT, sentence)
    return refused
