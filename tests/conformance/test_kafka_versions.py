"""The server says which versions of Kafka's requests it takes, and takes no others.

The bytes are made and read here, so that no error of the server's codec is repeated.
"""

import socket
import struct
from collections.abc import Iterator

import pytest

from robustmq.kafka.api_keys import APIS, ApiKey
from tests.integration.supervised import PATIENCE_SECONDS, Node

API_VERSIONS = 18
UNSUPPORTED_VERSION = 35
INVALID_REQUEST = 42
CLOSED = b""


class Client:
    """A connection of a client that knows nothing but frames."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=PATIENCE_SECONDS)
        self._file = self._socket.makefile("rb")
        self._number = 0

    def ask(self, api: int, version: int, body: bytes = b"") -> bytes:
        """Send a request; return the answer behind its correlation id, or CLOSED."""
        self._number += 1
        header = struct.pack(">hhih", api, version, self._number, 2) + b"me"
        self._socket.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
        try:
            size = self._file.read(4)
        except ConnectionResetError:
            return CLOSED
        if not size:
            return CLOSED
        answer = self._file.read(int.from_bytes(size, "big"))
        assert answer[:4] == struct.pack(">i", self._number)
        return answer[4:]

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@pytest.fixture
def client(node: Node) -> Iterator[Client]:
    client = Client(node.address("kafka_tcp"))
    yield client
    client.close()


def asked(version: int, name: bytes = b"test") -> bytes:
    """The body of ApiVersions, behind the tags of the header when there are some."""
    if version < 3:
        return b""
    text = bytes((len(name) + 1,)) + name
    return b"\0" + text + text + b"\0"


def listed(answer: bytes, version: int) -> tuple[int, dict[int, tuple[int, int]]]:
    """Return the error and the ranges of an answer in a version."""
    error, at = int.from_bytes(answer[:2], "big"), 2
    if version < 3:
        count, at, step = int.from_bytes(answer[2:6], "big"), 6, 6
    else:
        assert answer[2] < 128
        count, at, step = answer[2] - 1, 3, 7
    rows = [struct.unpack_from(">hhh", answer, at + step * index) for index in range(count)]
    rest = answer[at + step * count :]
    # The time to wait, none; and what is tagged: nothing.
    assert rest == (b"", bytes(4), bytes(4), bytes(5), bytes(5))[version]
    return error, {key: (oldest, newest) for key, oldest, newest in rows}


@pytest.mark.parametrize("version", range(5))
def test_api_versions_is_answered_in_each_of_its_versions(client: Client, version: int) -> None:
    error, ranges = listed(client.ask(API_VERSIONS, version, asked(version)), version)
    assert error == 0
    assert ranges == {key: api.advertised for key, api in APIS.items()}
    assert ranges[API_VERSIONS] == (0, 4)


@pytest.mark.parametrize("version", [-1, 5, 6, 99, 32_767])
def test_another_version_of_it_is_answered_in_version_0(client: Client, version: int) -> None:
    answer = client.ask(API_VERSIONS, version, asked(3) + b"of another form")
    assert listed(answer, 0) == (UNSUPPORTED_VERSION, {API_VERSIONS: (0, 4)})
    # The client tries again on the same connection.
    assert listed(client.ask(API_VERSIONS, 4, asked(4)), 4)[0] == 0


@pytest.mark.parametrize("name", [b"", b"-x", b"x y", "ä".encode()])
def test_software_without_a_name_is_refused(client: Client, name: bytes) -> None:
    answer = client.ask(API_VERSIONS, 3, asked(3, name))
    assert listed(answer, 3)[0] == INVALID_REQUEST


@pytest.mark.parametrize("key", ApiKey, ids=lambda key: key.name)
def test_another_version_of_anything_else_ends_the_connection(node: Node, key: ApiKey) -> None:
    if key == ApiKey.API_VERSIONS:
        return
    api = APIS[key]
    for version in {-1, api.oldest - 1, api.newest + 1, 32_767}:
        client = Client(node.address("kafka_tcp"))
        assert client.ask(key, version, bytes(64)) == CLOSED, version
        client.close()


@pytest.mark.parametrize("key", [-1, 4, 5, 6, 7, 27, 38, 52, 71, 72, 93, 1_000, 1_001, 32_767])
def test_what_is_not_listed_ends_the_connection(client: Client, key: int) -> None:
    assert key not in APIS
    assert client.ask(key, 0, bytes(64)) == CLOSED
