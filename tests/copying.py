"""Kafka's consume-transform-produce: what is read from a topic is written to another, once."""

import threading
import uuid
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

PATIENCE: Final = 60.0
RECORDS: Final = 40
PARTITIONS: Final = 4
SLICE: Final = 10
STAYING: Final = {"metadata.recovery.strategy": "none"}
"""librdkafka 2.16 forgets all brokers when it has lost its connections to them (KIP-899), and then
waits for ever to send the offsets of a transaction to one that it has forgotten."""


class Site:
    """Nodes as clients see them, with topics of one test."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        self.address = ",".join("{}:{}".format(*each) for each in addresses)
        mark = uuid.uuid4().hex[:8]
        self.source, self.target = f"source-{mark}", f"target-{mark}"
        self.group, self.id = f"group-{mark}", f"id-{mark}"
        topics = [NewTopic(self.source, PARTITIONS), NewTopic(self.target, PARTITIONS)]
        admin = AdminClient({"bootstrap.servers": self.address})
        for made in admin.create_topics(topics, operation_timeout=PATIENCE).values():
            made.result(PATIENCE)

    def fill(self, count: int = RECORDS) -> list[bytes]:
        """Write records to the source; return their values."""
        values = [b"%d" % number for number in range(count)]
        producer = Producer({"bootstrap.servers": self.address, "enable.idempotence": True})
        for number, value in enumerate(values):
            producer.produce(self.source, value, partition=number % PARTITIONS)
        assert producer.flush(PATIENCE) == 0
        return values

    def producer(self, name: str | None = None, **settings: Any) -> Producer:  # noqa: ANN401
        """A transactional producer that has begun."""
        settings = {key.replace("_", "."): value for key, value in settings.items()}
        producer = Producer(
            {
                "bootstrap.servers": self.address,
                "transactional.id": name or self.id,
                **STAYING,
                **settings,
            }
        )
        producer.init_transactions(PATIENCE)
        return producer

    def consumer(self, **settings: Any) -> Consumer:  # noqa: ANN401
        """A consumer of the group that commits nothing by itself, and has joined."""
        settings = {key.replace("_", "."): value for key, value in settings.items()}
        consumer = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": self.group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                **STAYING,
                **settings,
            }
        )
        consumer.subscribe([self.source])
        return consumer

    def read(self, topic: str, isolation: str = "read_committed") -> list[bytes]:
        """All that somebody reads who begins now, up to where the topic ends for him."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": f"reader-{uuid.uuid4().hex}",
                "enable.partition.eof": True,
                "enable.auto.commit": False,
                "isolation.level": isolation,
            }
        )
        consumer.assign([Place(topic, number, 0) for number in range(PARTITIONS)])
        values: list[bytes] = []
        ended: set[int] = set()
        while len(ended) < PARTITIONS:
            message = consumer.poll(PATIENCE)
            assert message is not None, "a topic has no end"
            error, partition, value = message.error(), message.partition(), message.value()
            assert partition is not None
            if error is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                ended.add(partition)
            elif value is not None:
                values.append(value)
        consumer.close()
        return values

    def committed(self) -> int:
        """How many records of the source the group has committed."""
        consumer = self.consumer()
        places = [Place(self.source, number) for number in range(PARTITIONS)]
        found = consumer.committed(places, PATIENCE)
        consumer.close()
        return sum(max(place.offset, 0) for place in found)

    def is_copied(self, values: list[bytes]) -> bool:
        """Whether the target has each record once; who reads more fails."""
        found = self.read(self.target)
        assert len(found) == len(set(found)), "something is there twice"
        assert set(found) <= {value + b"!" for value in values}
        return len(found) == len(values)


class Copying:
    """Copies a topic to another with confluent-kafka, a slice in a transaction, until told.

    `name` is its transactional id.
    """

    def __init__(self, site: Site, name: str | None = None) -> None:
        self._site = site
        self._name = name or site.id
        self.faults: list[str] = []
        self.count = 0
        self.is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def is_beyond(self, count: int) -> bool:
        """Whether more slices are copied."""
        return self.count > count

    def end(self) -> None:
        """No more."""
        self.is_over.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self.is_over.is_set():
            consumer = self._site.consumer(session_timeout_ms=6_000)
            try:
                producer = self._site.producer(self._name, transaction_timeout_ms=10_000)
                while not self.is_over.is_set():
                    self._copy(consumer, producer)
            except KafkaException as error:
                # The application begins anew, as if it had been restarted.
                self.faults.append(str(error))
            finally:
                consumer.close()

    def _copy(self, consumer: Consumer, producer: Producer) -> None:
        messages = [_parts(each) for each in consumer.consume(SLICE, 0.2) if each.error() is None]
        if not messages:
            return
        producer.begin_transaction()
        try:
            after: dict[int, int] = {}
            for partition, offset, value in messages:
                producer.produce(self._site.target, value + b"!", partition=partition)
                after[partition] = offset + 1
            places = [Place(self._site.source, number, at) for number, at in after.items()]
            metadata = consumer.consumer_group_metadata()
            producer.send_offsets_to_transaction(places, metadata, PATIENCE)
            producer.commit_transaction(PATIENCE)
            self.count += 1
        except KafkaException as error:
            if not error.args[0].txn_requires_abort():
                raise
            self.faults.append(str(error))
            producer.abort_transaction(PATIENCE)
            for place in consumer.committed(consumer.assignment(), PATIENCE):
                consumer.seek(Place(place.topic, place.partition, max(place.offset, 0)))


def _parts(message: Message) -> tuple[int, int, bytes]:
    partition, offset, value = message.partition(), message.offset(), message.value()
    assert partition is not None
    assert offset is not None
    assert value is not None
    return partition, offset, value
