"""Whatever a client of Kafka asks for, it is answered or sent away, and nothing else happens."""

import random
import socket
import struct
from collections.abc import Iterator
from typing import Self

import pytest

from robustmq.kafka import codec
from robustmq.kafka.api_keys import APIS, ApiKey
from robustmq.kafka.messages.connection import ApiVersionsRequest, ApiVersionsResponse
from robustmq.kafka.messages.fetch import FetchRequest
from robustmq.kafka.messages.groups import JoinGroupRequest
from robustmq.kafka.messages.produce import ProduceRequest
from robustmq.kafka.schema import Message
from tests.integration.supervised import PATIENCE_SECONDS, Node
from tests.integration.wire_client import serve
from tests.kafka_messages import Case, cases, message_of

SASL = {ApiKey.SASL_HANDSHAKE, ApiKey.SASL_AUTHENTICATE}
REQUESTS = [case for case in cases() if not case[2] and case[0].key not in SASL]
BOUND_BYTES = 65_536
ELEMENTS = 1_000


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that ends as it began: no process restarted, and no warning written."""
    yield from serve(
        tmp_path_factory.mktemp("kafka") / "data",
        f"kafka_runtime.max_request_bytes={BOUND_BYTES}",
        f"kafka_runtime.max_request_elements={ELEMENTS}",
    )


class Client:
    """A connection that says any bytes."""

    def __init__(self, node: Node) -> None:
        self._socket = node.connect("kafka_tcp")
        self._socket.settimeout(PATIENCE_SECONDS)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def finish(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def answer(self) -> bytes:
        """Return the next answer; nothing when the connection has ended."""
        try:
            size = self._file.read(4)
            return self._file.read(int.from_bytes(size, "big")) if size else b""
        except ConnectionResetError:
            return b""


def framed(case: Case, message: Message) -> bytes:
    api, version, _ = case
    data = b"".join(codec.encode_request(api.key, version, 7, "client", message))
    return struct.pack(">i", len(data)) + data


def hurried(message: Message) -> Message:
    """Return a message that is answered, and soon."""
    if isinstance(message, ProduceRequest):
        message.acks = 1
    if isinstance(message, FetchRequest):
        message.max_wait_ms = 10
    if isinstance(message, JoinGroupRequest):
        message.rebalance_timeout_ms = 10
    return message


@pytest.mark.parametrize("seed", range(3))
def test_any_request_in_any_version_is_answered(node: Node, seed: int) -> None:
    rng = random.Random(seed)
    order = rng.sample(REQUESTS, len(REQUESTS))
    with Client(node) as client:
        for case in order:
            api, version, _ = case
            message = message_of(case, rng, is_likely=True) if seed else api.request()
            client.send(framed(case, hurried(message)))
            answer = client.answer()
            assert answer, (api.name, version, message)
            number, response = codec.decode_response(api.key, version, answer)
            assert number == 7
            assert isinstance(response, api.response)


def test_garbage_ends_its_connection_and_no_other(node: Node) -> None:
    rng = random.Random(9)
    with Client(node) as other:
        for case in rng.sample(REQUESTS, 60):
            api, version, _ = case
            header = struct.pack(">hhih", api.key, version, 1, -1)
            body = rng.randbytes(rng.randrange(300))
            with Client(node) as client:
                client.send(struct.pack(">i", len(header) + len(body)) + header + body)
                client.finish()
                while client.answer():
                    pass
        expect_versions(other)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">i", -1),
        struct.pack(">i", BOUND_BYTES + 1),
        struct.pack(">i", 0),
        struct.pack(">i", 3) + b"abc",
        b"GET / HTTP/1.1\r\n\r\n",
        # Metadata v9 with an array of 2^35 names.
        struct.pack(">ihhih", 16, 3, 9, 1, -1) + b"\0\xff\xff\xff\xff\x7f",
        # Metadata v4 with more names than a request may have elements, each of them empty.
        struct.pack(">ihhihi", 15 + 2 * ELEMENTS + 2, 3, 4, 1, -1, ELEMENTS + 1)
        + bytes(2 * ELEMENTS + 2 + 1),
    ],
    ids=["negative", "large", "empty", "short", "http", "array", "elements"],
)
def test_hostile_bytes_end_the_connection(node: Node, data: bytes) -> None:
    with Client(node) as client:
        client.send(data)
        assert client.answer() == b""
    with Client(node) as client:
        expect_versions(client)


def expect_versions(client: Client) -> None:
    case = (APIS[ApiKey.API_VERSIONS], 3, False)
    client.send(framed(case, ApiVersionsRequest("test", "1")))
    _, response = codec.decode_response(ApiKey.API_VERSIONS, 3, client.answer())
    assert isinstance(response, ApiVersionsResponse)
    assert response.error_code == 0
