"""What every storage engine offers, how its logs are set, and what recovery has found."""

from collections.abc import Callable
from typing import Annotated, Final, NamedTuple, Protocol, TypeAlias

from msgspec import Meta, Struct, field

from robustmq.storage.log import Log
from robustmq.storage.log_settings import Flush, LogSettings

PROGRESS_SECONDS: Final = 1.0
"""How often a recovery that takes long says how far it has come."""


class EngineSettings(Struct, frozen=True, kw_only=True):
    """What one engine may take; one engine per core.

    pending_bytes: Bytes appended but not yet written beyond which appends are refused.
    retry_ms: Milliseconds between attempts to write again after an error.
    open_files: Segment files held open for reading.
    memory_bytes: Bytes of RocksDB's write buffers and block cache together.
    wal_bytes: Bytes of RocksDB's write-ahead log until its tables are written out.
    flush: When the rows beside the logs count as durable; `always` for each commit of them.
    interval_ms: Milliseconds after which rows that were written are synced (`interval`).
    """

    pending_bytes: Annotated[int, Meta(ge=1)] = 268_435_456
    retry_ms: Annotated[int, Meta(ge=1)] = 500
    open_files: Annotated[int, Meta(ge=1)] = 256
    memory_bytes: Annotated[int, Meta(ge=1 << 20)] = 134_217_728
    wal_bytes: Annotated[int, Meta(ge=1 << 20)] = 268_435_456
    flush: Flush = "interval"
    interval_ms: Annotated[int, Meta(ge=1)] = 1_000


class Quarantined(NamedTuple):
    """Offsets `start` to `end` of a log that were damaged and moved aside, and why."""

    shard: int
    start: int
    end: int
    reason: str


class Recovery(Struct):
    """What opening has read and found: counts of logs, batches and bytes, and the damage.

    `cut_bytes` were written when the end came, and never reported durable. `wal_bytes` are those
    of write-ahead logs; `damaged` are places in them, and where the file was kept.
    """

    logs: int = 0
    batches: int = 0
    bytes: int = 0
    cut_bytes: int = 0
    wal_bytes: int = 0
    damaged: list[str] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    seconds: float = 0.0


class Tally(Struct):
    """What an engine has done since it was opened.

    commits: Writes, each of all that a turn had.
    rows: Rows put and deleted by them, beside the logs.
    syncs: Times that what was written was synced.
    failures: Times that writing or syncing failed.
    """

    commits: int = 0
    rows: int = 0
    syncs: int = 0
    failures: int = 0


Progress: TypeAlias = Callable[[Recovery], object]
"""Told about once a second what recovery has done so far."""


class Engine(Protocol):
    """The logs of one core on one medium. Made after the fork, used by one thread.

    The loop appends, calls `commit` once at the end of a turn, and when `fileno()` becomes
    readable, `completed`.
    """

    recovery: Recovery
    """What `open` has found so far; damage that reading finds is added to it."""

    @property
    def failure(self) -> str | None:
        """Why appends are refused, as a sentence; None while they are taken."""

    def shards(self) -> list[int]:
        """The shards that have a log here, ascending."""

    def open(self, shard: int, settings: LogSettings) -> Log:
        """Recover the log of a shard, or make one. Its directory must hold a known format."""

    def remove(self, shard: int) -> None:
        """Forget a log and everything in it."""

    def commit(self) -> bool:
        """Begin to make durable all that was appended since; True: call `completed` now.

        Never waits. All logs share the work: one write and one sync, whoever asked.
        """

    def fileno(self) -> int:
        """An eventfd that is readable when `completed` has something."""

    def completed(self) -> list[Log]:
        """Take what was completed: the logs whose `durable_offset` has moved."""

    def close(self) -> None:
        """Write and sync everything, however long it takes, and let go."""
