"""What it costs to read and write Kafka's messages: ours, and two libraries.

Run with `python -m perf.micro.kafka_codec [seconds per case]`. Prints microseconds per message,
best of three: what is hot in a broker, in the versions that clients use. kafka-python is asked for
what a broker would do with it; kio, too.
"""

import io
import sys
import time
from collections.abc import Callable
from typing import Any

from kafka.protocol.consumer import fetch as theirs_fetch
from kafka.protocol.consumer import group as theirs_group
from kafka.protocol.producer import produce as theirs_produce
from kio.schema.fetch.v12.request import FetchRequest as KioFetchRequest
from kio.schema.fetch.v12.response import FetchResponse as KioFetchResponse
from kio.schema.heartbeat.v4.request import HeartbeatRequest as KioHeartbeatRequest
from kio.schema.produce.v9.request import ProduceRequest as KioProduceRequest
from kio.schema.produce.v9.response import ProduceResponse as KioProduceResponse
from kio.serial import entity_reader, entity_writer

from robustmq.kafka import codec
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.messages import fetch, groups, produce
from robustmq.kafka.schema import Message

BATCH = bytes(16_384)
Case = tuple[str, Callable[[], object], Callable[[], object], Callable[[], object]]


def produce_request(partitions: int) -> Message:
    """Return a request with a batch for each of `partitions`."""
    data = [produce.PartitionProduceData(index, BATCH[:1_000]) for index in range(partitions)]
    return produce.ProduceRequest(None, -1, 30_000, [produce.TopicProduceData("orders", data)])


def produce_response() -> Message:
    """Return the answer for one partition."""
    answer = produce.PartitionProduceResponse(0, 0, 123_456, -1, 0)
    return produce.ProduceResponse([produce.TopicProduceResponse("orders", [answer])])


def fetch_request(partitions: int) -> Message:
    """Return a request as librdkafka makes it: all partitions each time."""
    wanted = [
        fetch.FetchPartition(partition=index, fetch_offset=99, partition_max_bytes=1 << 20)
        for index in range(partitions)
    ]
    topics = [fetch.FetchTopic(topic="orders", partitions=wanted)]
    return fetch.FetchRequest(max_wait_ms=500, min_bytes=1, topics=topics)


def fetch_response(partitions: int) -> Message:
    """Return the answer with a stored batch for each of `partitions`."""
    data = [
        fetch.PartitionData(
            partition_index=index, high_watermark=100, last_stable_offset=100, records=(BATCH,)
        )
        for index in range(partitions)
    ]
    topics = [fetch.FetchableTopicResponse(topic="orders", partitions=data)]
    return fetch.FetchResponse(responses=topics)


def request_body(api: int, version: int, request: Message) -> tuple[bytes, int]:
    """Return a request's bytes, and where its body begins."""
    data = b"".join(codec.encode_request(api, version, 1, "client", request))
    return data, codec.decode_request_header(data).body_at


def reading(  # noqa: PLR0917
    name: str,
    api: int,
    version: int,
    request: Message,
    kind: Any,  # noqa: ANN401
    kio: Any,  # noqa: ANN401
) -> Case:
    """Return the case of reading a request."""
    data, at = request_body(api, version, request)
    body = data[at:]
    read = entity_reader(kio)
    return (
        f"read {name}",
        lambda: codec.decode_request(api, version, data, at),
        lambda: kind.decode(body, version=version),
        lambda: read(body, 0),
    )


def writing(  # noqa: PLR0917
    name: str,
    api: int,
    version: int,
    response: Message,
    kind: Any,  # noqa: ANN401
    kio: Any,  # noqa: ANN401
) -> Case:
    """Return the case of writing a response."""
    body = b"".join(codec.encode_response(api, version, 1, response))[5:]
    theirs = kind.decode(body, version=version)
    theirs._header = None  # What decode leaves out, and encode asks for.
    value, _ = entity_reader(kio)(body, 0)
    write = entity_writer(kio)
    return (
        f"write {name}",
        lambda: codec.encode_response(api, version, 1, response),
        lambda: theirs.encode(version=version),
        lambda: write(io.BytesIO(), value),
    )


def cases() -> list[Case]:
    """Return all cases: a name, ours, kafka-python's, kio's."""
    p, f, h = ApiKey.PRODUCE, ApiKey.FETCH, ApiKey.HEARTBEAT
    requests = (theirs_produce.ProduceRequest, KioProduceRequest)
    return [
        reading("Produce v9, 1 partition", p, 9, produce_request(1), *requests),
        reading("Produce v9, 10 partitions", p, 9, produce_request(10), *requests),
        writing(
            "Produce v9, 1 partition", p, 9, produce_response(),
            theirs_produce.ProduceResponse, KioProduceResponse,
        ),
        *(
            reading(
                f"Fetch v12, {count} partitions", f, 12, fetch_request(count),
                theirs_fetch.FetchRequest, KioFetchRequest,
            )
            for count in (4, 1_000)
        ),
        writing(
            "Fetch v12, 4 x 16 KiB", f, 12, fetch_response(4),
            theirs_fetch.FetchResponse, KioFetchResponse,
        ),
        reading(
            "Heartbeat v4", h, 4, groups.HeartbeatRequest("group", 7, "member"),
            theirs_group.HeartbeatRequest, KioHeartbeatRequest,
        ),
    ]  # fmt: skip


def microseconds(call: Callable[[], object], seconds: float) -> float:
    """Return the time of one call, best of three."""
    best = float("inf")
    for _ in range(3):
        rounds, start = 0, time.process_time()
        while time.process_time() - start < seconds / 3:
            for _ in range(10):
                call()
            rounds += 10
        best = min(best, (time.process_time() - start) / rounds * 1e6)
    return best


def main() -> None:
    """Measure every case with everybody."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.6
    print(f"{'':<34}{'ours':>14}{'kafka-python':>16}{'kio':>14}")
    for name, *calls in cases():
        figures = [microseconds(call, seconds) for call in calls]
        print(f"{name:<34}" + "".join(f"{figure:>11.2f} us" for figure in figures))


if __name__ == "__main__":
    main()
