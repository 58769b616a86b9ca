"""Members of Kafka's consumer groups, of several client libraries, in threads of their own."""

import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self

import confluent_kafka
import confluent_kafka.admin
from confluent_kafka.cimpl import NewTopic

from tests.integration.supervised import Node, until

PATIENCE_SECONDS: Final = 60.0
NOTHING: Final[Mapping[str, str]] = {}


def server(node: Node) -> str:
    """Where clients of Kafka find a node."""
    host, port = node.address("kafka_tcp")
    return f"{host}:{port}"


def make_topic(address: str, name: str, partitions: int) -> None:
    """Make a topic."""
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": address})
    topic = NewTopic(name, partitions, 1)
    admin.create_topics([topic])[name].result(PATIENCE_SECONDS)


def produce(address: str, topic: str, values: Iterable[str], partitions: int) -> None:
    """Produce values, one partition after the other, and wait until all are acknowledged."""
    producer = confluent_kafka.Producer({"bootstrap.servers": address, "linger.ms": 5})
    failed: list[object] = []

    def noted(error: object, message: object) -> None:
        del message
        if error is not None:
            failed.append(error)

    for index, value in enumerate(values):
        producer.produce(topic, value.encode(), partition=index % partitions, callback=noted)
    assert producer.flush(PATIENCE_SECONDS) == 0
    assert failed == []


class Member:
    """A consumer of confluent-kafka: polls in a thread, notes what it reads and is assigned.

    It commits after each message. `settings` are librdkafka's.
    """

    def __init__(
        self,
        address: str,
        group: str,
        topic: str,
        settings: Mapping[str, str] = NOTHING,
    ) -> None:
        self.read: list[str] = []
        self.assigned = 0
        """How often it was assigned partitions."""
        self.partitions: set[int] = set()
        self.errors: list[str] = []
        is_classic = settings.get("group.protocol") != "consumer"
        config: Mapping[str, Any] = {
            "bootstrap.servers": address,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "reconnect.backoff.max.ms": 500,
            **({"heartbeat.interval.ms": 200} if is_classic else {}),
            **settings,
        }
        self.consumer = confluent_kafka.Consumer(dict(config))
        self.consumer.subscribe(
            [topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the group."""
        self._ended.set()
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()

    def end(self) -> None:
        """Do not wait until it has left: there is nobody to leave."""
        self._ended.set()

    def _on_assign(self, consumer: object, partitions: list[Any]) -> None:
        self.assigned += 1
        self.partitions |= {each.partition for each in partitions}

    def _on_revoke(self, consumer: object, partitions: list[Any]) -> None:
        self.partitions -= {each.partition for each in partitions}

    def _run(self) -> None:
        while not self._ended.is_set():
            message = self.consumer.poll(0.1)
            if message is None:
                continue
            if message.error():
                self.errors.append(str(message.error()))
                continue
            value = message.value()
            assert value is not None
            self.read.append(value.decode())
            self._commit(message)
        self.consumer.close()

    def _commit(self, message: confluent_kafka.Message) -> None:
        try:
            self.consumer.commit(message=message, asynchronous=False)
        except confluent_kafka.KafkaException as error:
            self.errors.append(str(error))


def shared(members: Iterable[Member], partitions: int) -> None:
    """Wait until members have all partitions, each of them some, and no two the same."""

    def is_shared() -> bool:
        owned = [sorted(member.partitions) for member in members]
        return all(owned) and sorted(each for some in owned for each in some) == list(
            range(partitions)
        )

    until(is_shared, "members share the partitions", PATIENCE_SECONDS)


def read(members: Iterable[Member], values: Iterable[str]) -> None:
    """Wait until members have read all values."""
    wanted = set(values)
    known = list(members)
    until(
        lambda: wanted <= {value for member in known for value in member.read},
        "members have read everything",
        PATIENCE_SECONDS,
    )
