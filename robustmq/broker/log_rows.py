"""The rows of topic logs.

`Q` name -> a log's number and engine. `P` number -> who has appended what (`Shard.note`).
"""

import struct
from typing import Final, NamedTuple

from robustmq.config import Engine
from robustmq.errors import Corrupt

_LISTED: Final = struct.Struct(">IB")
_NOTE_KEY: Final = struct.Struct(">cI")
_MEDIA: Final[tuple[Engine, ...]] = ("rocksdb", "segment")
"""The engines that survive a restart, by their number in a row."""


class Listed(NamedTuple):
    """What a row `Q` says of a log: its number, and the engine in which it was made.

    `epochs` are those of its leaders (`shard.leader_epochs`).
    """

    number: int
    engine: Engine
    epochs: bytes = b""


def listed_key(name: bytes) -> bytes:
    """The key of a log's row."""
    return b"Q" + name


def encode_listed(number: int, engine: Engine, epochs: bytes = b"") -> bytes:
    """The value of a log's row (`Listed`); `engine` is one that survives a restart."""
    return _LISTED.pack(number, _MEDIA.index(engine)) + epochs


def decode_listed(value: bytes) -> Listed:
    """Undo `encode_listed`. Raises Corrupt."""
    if len(value) < _LISTED.size:
        raise Corrupt(f"the row of a log has {len(value)} bytes")
    number, medium = _LISTED.unpack_from(value)
    if medium >= len(_MEDIA):
        raise Corrupt(f"the row of log {number} has an unknown engine: {medium}")
    return Listed(number, _MEDIA[medium], value[_LISTED.size :])


def note_key(number: int) -> bytes:
    """The key of the note of who has appended what to a log (`Shard.note`)."""
    return _NOTE_KEY.pack(b"P", number)
