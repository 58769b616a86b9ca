"""Random messages of Kafka, and what they say by name, for tests of the codec."""

import random
import struct
from collections.abc import Sequence

from robustmq.kafka.api_keys import APIS, Api
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.schema import Field, Message, Shape, fields_of

TEXTS: Sequence[str] = ("", "a", "orders.eu", "größe ☃", "x" * 127, "y" * 128, "z" * 300)
_CODES = [int(code) for code in ErrorCode if code <= 90]

# What a server takes for something: names that exist somewhere, and small numbers.
LIKELY_TEXTS: Sequence[str] = (
    "topic", "group", "transaction", "consumer", "range", "uniform", "*", "User:somebody", "user",
    "retention.ms", "cleanup.policy", "compact", "1000", "SCRAM-SHA-256", "producer_byte_rate", "",
)  # fmt: skip
LIKELY_NUMBERS = (-2, -1, 0, 0, 1, 1, 2, 3, 100)

Case = tuple[Api, int, bool]


class Source:
    """Where values come from: `is_likely` ones, that get further into a server, or any."""

    def __init__(self, rng: random.Random, *, is_likely: bool = False) -> None:
        self._rng = rng
        self._is_likely = is_likely

    def message(self, kind: type[Message], version: int) -> Message:
        """Return a message; fields that the version lacks are as they are by default."""
        values = {
            field.name: self._field(field, version)
            for field in fields_of(kind, version)
            if field.is_present and (field.tag < 0 or self._rng.random() < 0.5)
        }
        return kind(**values)

    def _field(self, field: Field, version: int) -> object:
        if field.is_nullable and self._rng.random() < 0.3:
            return None
        if field.name.endswith("error_code"):
            return self._rng.choice(_CODES)
        if field.name.endswith("_ms") or field.name == "timestamp":
            return self._rng.randrange(1_000 if self._is_likely else 1 << 30)
        return self._value(field.shape, version)

    def _value(self, shape: Shape, version: int) -> object:
        rng = self._rng
        match shape.kind:
            case "fixed":
                return self._fixed(shape.code)
            case "str":
                return rng.choice(LIKELY_TEXTS if self._is_likely else TEXTS)
            case "bytes" | "batches":
                return rng.randbytes(rng.choice((0, 1, 61, 126, 127, 2_000)))
            case "list":
                assert shape.item is not None
                count = rng.choice((0, 1, 1, 2, 3))
                return [self._value(shape.item, version) for _ in range(count)]
        assert shape.message is not None
        return self.message(shape.message, version)

    def _fixed(self, code: str) -> object:
        rng = self._rng
        if code == "?":
            return rng.random() < 0.5
        if code == "16s":
            return rng.randbytes(16)
        if code == "d":
            return rng.choice((0.0, 1.5, -1e300))
        bits = 8 * struct.calcsize(code)
        low = 0 if code.isupper() else -1 << bits - 1
        high = low + (1 << bits) - 1
        if self._is_likely:
            return max(rng.choice(LIKELY_NUMBERS), low)
        return rng.choice((0, 1, low, high, rng.randint(low, high)))


def cases() -> list[Case]:
    """Return every API and version that is spoken, and whether it is the response."""
    return [
        (api, version, is_response)
        for api in APIS.values()
        for version in range(api.oldest, api.newest + 1)
        for is_response in (False, True)
    ]


def message_of(case: Case, rng: random.Random, *, is_likely: bool = False) -> Message:
    """Return a random message of a case."""
    api, version, is_response = case
    kind = api.response if is_response else api.request
    return Source(rng, is_likely=is_likely).message(kind, version)


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
