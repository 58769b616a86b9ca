"""What the meta process and the other processes of its node say to each other.

Whatever is for a process names that process's life (`epoch`), as in `questions`. A proposal or a
query of which nothing is heard because the meta process has ended is made again to its next life.
"""

from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from robustmq.message.session_record import SessionRecord
from robustmq.meta.data import Retained
from robustmq.meta.offset import Offset
from robustmq.meta.records import Record

PAGE_ROWS: Final = 500
"""Rows of an answer at most."""


class Hello(Struct, tag=True, array_like=True):
    """A process's life has begun, or something is missing: it wants the records."""

    epoch: int


class Propose(Struct, tag=True, array_like=True):
    """Have a command folded by a group; answered by Outcome."""

    epoch: int
    number: int
    group: str
    command: bytes


class Query(Struct, tag=True, array_like=True):
    """What does a group hold? Answered by Found, when it has folded all that was committed.

    `kind` keys: of the key-value store, those that begin with `prefix`, from `start` on. owned:
    the sessions of this core that this node owns, from the identity `start` on. sessions: those
    with the identities `names`. Of an offset group, page: that of the key `start`; page_keys: as
    keys; offsets: those under the key `prefix`, from the place `start` on.
    """

    epoch: int
    number: int
    group: str
    kind: str
    prefix: str = ""
    start: str = ""
    names: list[str] = []
    limit: int = 100


class Follow(Struct, tag=True, array_like=True):
    """A core wants what has changed of its retained topics in a group, behind `after`.

    Answered by Changed; who has read to the end hears of all further changes unasked.
    """

    epoch: int
    group: str
    after: tuple[int, bytes]
    is_whole: bool = False


class Welcome(Struct, tag=True, array_like=True):
    """A life of the meta process has begun: what its predecessor owes is asked of it again."""

    epoch: int
    life: int


class Snapshot(Struct, tag=True, array_like=True):
    """All records as of `index`."""

    epoch: int
    index: int
    records: list[Record]


class Records(Struct, tag=True, array_like=True):
    """What has changed behind `before` up to `index`."""

    epoch: int
    before: int
    index: int
    records: list[Record]


class Outcome(Struct, tag=True, array_like=True):
    """What became of a proposal: its position in the log and its outcome, or a refusal."""

    epoch: int
    number: int
    index: int
    result: bytes
    code: int = 0
    detail: str = ""


class Found(Struct, tag=True, array_like=True):
    """The answer to a query: rows of the type that it asked for, and where to go on.

    `rows` are encoded: FoundKey, or SessionRecord and, where `names` were asked for, None; one
    `meta.offset.Page`, keys of pages, or FoundOffset.
    """

    epoch: int
    number: int
    rows: bytes = b""
    after: str | None = None
    code: int = 0
    detail: str = ""


class FoundKey(Struct, array_like=True, frozen=True):
    """A key of the key-value store."""

    key: str
    value: bytes
    changed: int


class FoundOffset(Struct, array_like=True, frozen=True):
    """An offset, and its place."""

    place: str
    offset: Offset


class Changed(Struct, tag=True, array_like=True):
    """Retained messages of a core's topics that a group has changed, each with its index.

    They follow all that this life of the core was told before; `index` is how far the group is.
    `after` is where to go on with `Follow`, None: all is told. `is_whole`: as in `data.Changes`.
    `is_missing`: something was left out, `Follow` from where the core is.
    """

    epoch: int
    group: str
    index: int
    rows: list[tuple[int, Retained]]
    after: tuple[int, bytes] | None = None
    is_whole: bool = False
    is_missing: bool = False


class Adopt(Struct, tag=True, array_like=True):
    """Sessions of a node that is gone: this core is asked to propose that it has them now.

    With `is_last` this node has its share of that node's sessions, those before included.
    """

    epoch: int
    node: int
    sessions: list[SessionRecord]
    is_last: bool = False


class Standing(Struct, tag=True, array_like=True):
    """Whether this node is in touch with the cluster: else it serves nobody."""

    epoch: int
    is_isolated: bool


ToMeta: TypeAlias = Hello | Propose | Query | Follow
FromMeta: TypeAlias = Welcome | Snapshot | Records | Outcome | Found | Changed | Adopt | Standing

_encoder: Final = msgspec.msgpack.Encoder()
_to_meta: Final = msgspec.msgpack.Decoder(ToMeta)
_from_meta: Final = msgspec.msgpack.Decoder(FromMeta)


def encode(message: ToMeta | FromMeta) -> bytes:
    """Return a message as bytes."""
    return _encoder.encode(message)


def for_meta(data: bytes) -> ToMeta:
    """Read a message for the meta process."""
    message: ToMeta = _to_meta.decode(data)
    return message


def from_meta(data: bytes) -> FromMeta:
    """Read a message of the meta process."""
    message: FromMeta = _from_meta.decode(data)
    return message
