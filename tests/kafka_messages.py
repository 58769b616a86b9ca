"""Random messages of Kafka, and what they say by name, for tests of the codec."""

import random
import struct

from robustmq.kafka.api_keys import APIS, Api
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.schema import Field, Message, Shape, fields_of

TEXTS = ("", "a", "orders.eu", "größe ☃", "x" * 127, "y" * 128, "z" * 300)
_CODES = [int(code) for code in ErrorCode if code <= 90]

Case = tuple[Api, int, bool]


def cases() -> list[Case]:
    """Return every API and version that is spoken, and whether it is the response."""
    return [
        (api, version, is_response)
        for api in APIS.values()
        for version in range(api.oldest, api.newest + 1)
        for is_response in (False, True)
    ]


def message_of(case: Case, rng: random.Random) -> Message:
    """Return a random message, whose fields that the version lacks are as they are by default."""
    api, version, is_response = case
    return _message(api.response if is_response else api.request, version, rng)


def _message(kind: type[Message], version: int, rng: random.Random) -> Message:
    values = {
        field.name: _field(field, version, rng)
        for field in fields_of(kind, version)
        if field.is_present and (field.tag < 0 or rng.random() < 0.5)
    }
    return kind(**values)


def _field(field: Field, version: int, rng: random.Random) -> object:
    if field.is_nullable and rng.random() < 0.3:
        return None
    if field.name.endswith("error_code"):
        return rng.choice(_CODES)
    if field.name.endswith("_ms") or field.name == "timestamp":
        return rng.randrange(1 << 30)
    return _value(field.shape, version, rng)


def _value(shape: Shape, version: int, rng: random.Random) -> object:
    match shape.kind:
        case "fixed":
            return _fixed(shape.code, rng)
        case "str":
            return rng.choice(TEXTS)
        case "bytes" | "batches":
            return rng.randbytes(rng.choice((0, 1, 61, 126, 127, 2_000)))
        case "list":
            assert shape.item is not None
            return [_value(shape.item, version, rng) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
    assert shape.message is not None
    return _message(shape.message, version, rng)


def _fixed(code: str, rng: random.Random) -> object:
    if code == "?":
        return rng.random() < 0.5
    if code == "16s":
        return rng.randbytes(16)
    if code == "d":
        return rng.choice((0.0, 1.5, -1e300))
    bits = 8 * struct.calcsize(code)
    low = 0 if code.isupper() else -1 << bits - 1
    high = low + (1 << bits) - 1
    return rng.choice((0, 1, low, high, rng.randint(low, high)))


def plain(message: Message, version: int) -> dict[str, object]:
    """Return what a message says in a version, by the names of its fields."""
    return {
        field.name: _plain(getattr(message, field.name), version)
        for field in fields_of(type(message), version)
        if field.is_present
    }


def _plain(value: object, version: int) -> object:
    if isinstance(value, Message):
        return plain(value, version)
    if isinstance(value, list):
        return [_plain(element, version) for element in value]
    return value
