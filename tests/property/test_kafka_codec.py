"""What we write, two other codecs read, and write again byte by byte; and no bytes break ours."""

import importlib
import io
import random
import re
import tracemalloc
import uuid
from collections.abc import Iterator
from typing import Any

import kafka.protocol.admin
import kafka.protocol.consumer
import kafka.protocol.metadata
import kafka.protocol.producer
import kafka.protocol.sasl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kio.serial import entity_reader, entity_writer

from robustmq.errors import ProtocolError
from robustmq.kafka import codec
from robustmq.kafka.api_keys import APIS, Api, ApiKey
from robustmq.kafka.messages.connection import ApiVersionsResponse
from robustmq.kafka.schema import NO_ID, Message
from tests.kafka_messages import Case, cases, message_of, plain

EACH = 2
"""Messages of every API, version and direction."""


def written(case: Case, message: Message) -> tuple[bytes, int]:
    """Return a message with its header, and where its body begins."""
    api, version, is_response = case
    if is_response:
        data = b"".join(codec.encode_response(api.key, version, 7, message))
        return data, 4 + (api.is_flexible(version) and api.key != ApiKey.API_VERSIONS)
    data = b"".join(codec.encode_request(api.key, version, 7, "client", message))
    return data, codec.decode_request_header(data).body_at


def read(case: Case, data: bytes) -> Message:
    api, version, is_response = case
    if is_response:
        return codec.decode_response(api.key, version, data)[1]
    return read_request(data)


def read_request(data: bytes) -> Message:
    header = codec.decode_request_header(data)
    return codec.decode_request(header.api, header.version, data, header.body_at)


def random_cases(seed: int) -> Iterator[tuple[Case, Message]]:
    rng = random.Random(seed)
    for case in cases():
        for _ in range(EACH):
            message = message_of(case, rng)
            if isinstance(message, ApiVersionsResponse):
                # An answer with an error is read as one of version 0.
                message.error_code = 0
            yield case, message


def same(ours: object, theirs: object) -> bool:
    """Say whether kafka-python understood the same under the same names."""
    match theirs:
        case uuid.UUID():
            return ours == theirs.bytes
        case dict():
            if ours is None:  # A tagged struct that is not there is as by default.
                return set(theirs.values()) == {-1}
            assert isinstance(ours, dict)
            # The bit field of rights is taken apart there.
            return len(ours) == len(theirs) and all(
                name.endswith("authorized_operations") or same(value, theirs[name])
                for name, value in ours.items()
            )
        case list():
            assert isinstance(ours, list)
            return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs or (ours == NO_ID and not theirs)


def test_kafka_python_reads_what_we_write_and_names_it_as_we_do() -> None:
    seen = set()
    for case, message in random_cases(1):
        api, version, is_response = case
        name = api.name + ("Response" if is_response else "Request")
        theirs = getattr(_home_of(name), name, None)
        if theirs is None:
            continue
        data, at = written(case, message)
        value = theirs.decode(data[at:], version=version)
        value._header = None
        assert bytes(value.encode(version=version)) == data[at:], (case, message)
        assert same(plain(message, version), value.to_dict(json=False)), (case, message, value)
        assert read(case, data) == message
        seen.add(api.key)
    assert set(APIS) - seen == {
        ApiKey.CONSUMER_GROUP_HEARTBEAT,
        ApiKey.CONSUMER_GROUP_DESCRIBE,
    }


def _home_of(name: str) -> Any:  # noqa: ANN401
    protocol = kafka.protocol
    homes = (
        protocol.consumer, protocol.producer, protocol.admin, protocol.metadata, protocol.sasl,
    )  # fmt: skip
    return next((home for home in homes if hasattr(home, name)), None)


def test_kio_reads_what_we_write_and_writes_the_same() -> None:
    for case, message in random_cases(2):
        api, version, is_response = case
        kind = _kio_class(api, version, is_response)
        data, at = written(case, message)
        value, size = entity_reader(kind)(data[at:], 0)
        assert size == len(data) - at, case
        again = io.BytesIO()
        entity_writer(kind)(again, value)
        assert again.getvalue() == data[at:], (case, message)
        assert read(case, data) == message


def _kio_class(api: Api, version: int, is_response: bool) -> Any:  # noqa: ANN401
    package = re.sub(r"([a-z])([A-Z])", r"\1_\2", api.name).lower()
    module = importlib.import_module(f"kio.schema.{package}.v{version}")
    return getattr(module, api.name + ("Response" if is_response else "Request"))


def test_a_message_that_is_cut_short_is_refused() -> None:
    rng = random.Random(3)
    for case, message in random_cases(3):
        data, _ = written(case, message)
        for size in rng.sample(range(len(data)), min(8, len(data))):
            with pytest.raises(ProtocolError):
                read(case, data[:size])


@given(st.randoms(use_true_random=False), st.sampled_from(cases()), st.binary(max_size=40))
def test_garbage_is_a_message_or_a_protocol_error(
    rng: random.Random, case: Case, garbage: bytes
) -> None:
    data, at = written(case, message_of(case, rng))
    start = rng.randrange(at, len(data) + 1)
    spoilt = data[:start] + garbage + data[start + rng.randrange(8) :]
    try:
        message = read(case, spoilt)
    except ProtocolError:
        return
    # What was understood is written in our way, and that is read as the same.
    ours, _ = written(case, message)
    assert written(case, read(case, ours))[0] == ours


HUGE = b"\xff\xff\xff\xff\x7f"
"""The compact length 2^35 - 1 and more."""
METADATA = b"\0\3\0\t\0\0\0\1\xff\xff\0"
HOSTILE = {
    "an array that is longer than memory": METADATA + HUGE,
    "an array that is longer than the message": METADATA + b"\xfe\x01" + bytes(3),
    "a name that is longer than memory": METADATA + b"\2" + HUGE,
    "a negative length": b"\0\3\0\5\0\0\0\1\xff\xff\0\0\0\1\x80\0",
    "an array of a negative length": b"\0\x25\0\0\0\0\0\1\xff\xff\xff\xff\xff\xfe",
    "a varint without an end": METADATA + b"\xff" * 9,
    "tags without an end": METADATA + b"\0\1\0\0" + HUGE,
    "the same tag again": b"\0\1\0\x10\0\0\0\1\xff\xff\0" + bytes(21) + b"\1\1\1\2\0\1\0\1\0",
    "a client id beyond the end": b"\0\3\0\1\0\0\0\1\0\xff",
    "a name that is no text": METADATA + b"\2\3\xff\xfe\0\0\0\0\0",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_bytes_are_refused_and_cost_nothing(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError) as refused:
            read_request(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert refused.value.detail.endswith(".")


def test_arrays_have_no_more_elements_than_they_may() -> None:
    topics = b"".join(b"\2x\0" for _ in range(100))
    data = METADATA + b"\x65" + topics + b"\0\0\0\0"
    at = codec.decode_request_header(data).body_at
    assert len(plain(codec.decode_request(3, 9, data, at, max_elements=100), 9)) == 4
    with pytest.raises(ProtocolError, match="100 elements"):
        codec.decode_request(3, 9, data, at, max_elements=99)


def test_tagged_fields_that_nobody_knows_are_skipped() -> None:
    data = METADATA + b"\0\1\0\0\2\x05\3abc\x99\x01\0"
    assert read_request(data) == read_request(METADATA + b"\0\1\0\0\0")
