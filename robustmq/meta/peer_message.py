"""What the Raft hosts of two nodes say to each other, beside the messages of Raft itself.

A parcel is all that a turn has for one node, for all groups.
"""

from typing import Final

import msgspec
from msgspec import Struct

from robustmq.errors import ProtocolError
from robustmq.meta.outcomes import Batch
from robustmq.raft.message import Number, Snapshot


class Forward(Struct, frozen=True, array_like=True, tag=0, gc=False):
    """Proposals, from a node that does not lead a group to the one that does."""

    group: Number
    batch: Batch


class Chunk(Struct, frozen=True, array_like=True, tag=1, gc=False):
    """A part of a snapshot: rows as a msgpack array of keys and values in turn.

    transfer: The number of this sending, of its sender and never used again. number: The part's,
    from 0 on. crc: The CRC-32C of the rows. total: That of all rows so far, this part's included.
    """

    group: Number
    term: Number
    transfer: Number
    snapshot: Snapshot
    number: Number
    rows: bytes
    crc: Number
    total: Number
    last: bool


class ChunkReply(Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Which part is expected next; `refused`: none, this sending has failed or is not wanted."""

    group: Number
    transfer: Number
    expected: Number
    refused: bool = False


class Parcel(Struct, frozen=True, array_like=True, gc=False):
    """Messages of Raft as `raft.message.encode` makes them, and the hosts' own."""

    raft: bytes
    others: tuple[Forward | Chunk | ChunkReply, ...]


_encoder: Final = msgspec.msgpack.Encoder()
_parcels: Final = msgspec.msgpack.Decoder(Parcel)


def encode(parcel: Parcel) -> bytes:
    """Return a parcel's bytes."""
    return _encoder.encode(parcel)


def decode(data: bytes, most_bytes: int) -> Parcel:
    """Return the parcel. Raises ProtocolError when it is none, or longer than `most_bytes`."""
    if len(data) > most_bytes:
        raise ProtocolError(0, f"A parcel has {len(data)} bytes; {most_bytes} are allowed.")
    try:
        return _parcels.decode(data)
    except msgspec.DecodeError as error:
        raise ProtocolError(0, f"A parcel cannot be read: {error}.") from None
