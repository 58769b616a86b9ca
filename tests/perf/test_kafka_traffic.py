"""The load of Kafka's measurements is what it says, and its answers are read as they are meant."""

import time

from perf.kafka import traffic
from robustmq.kafka import codec
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.messages.fetch import (
    FetchableTopicResponse,
    FetchRequest,
    FetchResponse,
    PartitionData,
)
from robustmq.kafka.messages.produce import (
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceResponse,
)
from robustmq.message.batch import timestamp_of
from robustmq.shard.produced import Terms, checked
from robustmq.storage.header import placed


def request(framed: bytes) -> object:
    assert int.from_bytes(framed[:4], "big") == len(framed) - 4
    data = framed[4:]
    header = codec.decode_request_header(data)
    return codec.decode_request(header.api, header.version, data, header.body_at)


def answer(api: int, version: int, response: FetchResponse | ProduceResponse) -> bytes:
    return b"".join(codec.encode_response(api, version, 1, response))


def test_the_batch_is_one_that_a_partition_takes() -> None:
    payload = traffic.batch(970, 1024)
    now_ms = time.time_ns() // 1_000_000
    assert checked(payload, Terms(), now_ms).records == 970
    # As old as the measurement, so that retention leaves it alone.
    assert abs(timestamp_of(payload) - now_ms) < 60_000
    asked = request(traffic.produce(payload, 7, -1))
    assert isinstance(asked, ProduceRequest)
    (data,) = asked.topic_data[0].partition_data
    assert (data.index, data.records, asked.acks) == (7, payload, -1)


def test_an_error_in_the_answer_to_a_produce_is_counted() -> None:
    for error in (0, 6):
        slot = PartitionProduceResponse(index=0, error_code=error)
        topic = TopicProduceResponse(name=traffic.TOPIC, partition_responses=[slot])
        response = ProduceResponse(responses=[topic])
        found = answer(ApiKey.PRODUCE, traffic.PRODUCE_VERSION, response)
        assert traffic.produced(found).errors == (error != 0)


def test_a_fetch_goes_on_behind_what_has_come() -> None:
    asked = request(traffic.fetch({0: 5, 3: 6}))
    assert isinstance(asked, FetchRequest)
    wanted = [(each.partition, each.fetch_offset) for each in asked.topics[0].partitions]
    assert wanted == [(0, 5), (3, 6)]
    payload = traffic.batch(10, 100)
    stored = [b"".join(placed(payload, base, 0)) for base in (5, 15)]
    parts = [
        PartitionData(partition_index=0, records=stored, aborted_transactions=None),
        PartitionData(partition_index=3, error_code=1, records=b"", aborted_transactions=None),
    ]
    topic = FetchableTopicResponse(topic=traffic.TOPIC, partitions=parts)
    found = answer(ApiKey.FETCH, traffic.FETCH_VERSION, FetchResponse(responses=[topic]))
    offsets = {0: 5, 3: 6}
    assert traffic.fetched(found, offsets) == traffic.Answer(1, 2 * len(payload))
    assert offsets == {0: 25, 3: 6}
