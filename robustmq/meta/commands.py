"""The commands of the metadata group, their outcomes, and how both are written.

A command is a MessagePack array that begins with its name; fields are only ever added at its
end, with a default. A command that needs more raises `LEVEL`, and is proposed only when every
node's `level` has reached it.
"""

from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from robustmq.errors import Refusal, Refused
from robustmq.meta.records import Record

LEVEL: Final = 1
"""The level of the commands that this version understands."""


class Expectation(Struct, array_like=True, frozen=True):
    """A record was last changed at `index` of the log; 0: there is none."""

    kind: str
    name: str
    index: int


class Found(Struct, tag="found", array_like=True, frozen=True):
    """Give the cluster its id, once: the outcome of each is the id that it has."""

    id: str
    name: str = ""


class Register(Struct, tag="register", array_like=True, frozen=True):
    """A node's life begins, or goes on after a fence; the outcome is its record's value.

    Refused: another node (`store`) has the number, or another cluster was meant.
    """

    number: int
    store: str
    cluster: str
    address: str = ""
    grpc_port: int = 0
    peer_port: int = 0
    http_port: int = 0
    workers: int = 1
    roles: tuple[str, ...] = ("meta", "broker", "engine")
    level: int = LEVEL
    version: str = ""
    kafka_host: str = ""
    kafka_ports: dict[str, tuple[int, ...]] = {}


class Fence(Struct, tag="fence", array_like=True, frozen=True):
    """A node has not been heard as this incarnation: it is fenced, its incarnation raised."""

    number: int
    incarnation: int


class Leave(Struct, tag="leave", array_like=True, frozen=True):
    """A node goes for good: what it has is given to others, then it is forgotten."""

    number: int


class Forget(Struct, tag="forget", array_like=True, frozen=True):
    """A node that is leaving has nothing any more: its record is removed."""

    number: int
    incarnation: int


class Change(Struct, tag="change", array_like=True, frozen=True):
    """Set and remove records, all or none; then there are `most` records at most, None: any number.

    Records of nodes and of the cluster have commands of their own.
    """

    records: list[Record]
    expected: list[Expectation] = []
    most: int | None = None


class SetKey(Struct, tag="set_key", array_like=True, frozen=True):
    """Set a key of the key-value store, which no image holds; None removes it.

    `expected` is the index of its last change, 0 for none; None: whatever it is. `most` keys may
    there be afterwards, None: any number.
    """

    key: str
    value: bytes | None
    expected: int | None = None
    most: int | None = None


Command: TypeAlias = Found | Register | Fence | Leave | Forget | Change | SetKey


class Result(Struct, array_like=True, frozen=True):
    """The outcome of a command: a value, or why it was refused (`code` is a Refusal, 0: none)."""

    value: bytes = b""
    code: int = 0
    detail: str = ""


_encoder: Final = msgspec.msgpack.Encoder()
_commands: Final = msgspec.msgpack.Decoder(Command)
_results: Final = msgspec.msgpack.Decoder(Result)

DONE: Final = _encoder.encode(Result())


def encode(command: Command) -> bytes:
    """Return a command as bytes."""
    return _encoder.encode(command)


def decode(data: bytes) -> Command:
    """Read a command; raises msgspec.MsgspecError when this version does not understand it."""
    command: Command = _commands.decode(data)
    return command


def done(value: bytes = b"") -> bytes:
    """Return the outcome of what was done."""
    return _encoder.encode(Result(value)) if value else DONE


def refused(refusal: Refused) -> bytes:
    """Return the outcome of what was refused."""
    return _encoder.encode(Result(b"", int(refusal.code), refusal.detail))


def outcome(data: bytes) -> bytes | Refused:
    """Read an outcome: the value, or the refusal."""
    result = _results.decode(data)
    if not result.code:
        return result.value
    return Refused(Refusal(result.code), result.detail)


def not_understood() -> bytes:
    """Return the outcome of a command that this version cannot read."""
    return refused(
        Refused(
            Refusal.INTERNAL,
            "a command of the meta service is not understood: a newer version has proposed it "
            "before every node had that version",
        )
    )
