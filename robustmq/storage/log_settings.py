"""How one log is kept."""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

Flush: TypeAlias = Literal["always", "interval", "os"]
"""`always`: synced before durable. `interval`: written to the operating system before durable,
synced at least once per interval. `os`: written likewise, synced when the system likes."""


class LogSettings(Struct, frozen=True, kw_only=True):
    """How one log is kept; 0 means no bound.

    flush: When an append counts as durable.
    interval_ms: Milliseconds after which what was written is synced (`interval`).
    segment_bytes: Bytes of one segment file.
    segment_ms: Milliseconds after which a segment is closed although it has room.
    preallocate_bytes: Bytes of disk that a segment takes in advance, again and again: as much as it
        has, at least 64 KiB, at most these.
    index_interval_bytes: Bytes between two entries of the sparse indexes.
    retention_ms: Milliseconds that a record is kept at least, not much longer.
    retention_bytes: Bytes that are kept at least, not many more.
    retention_records: Records that are kept at least, not many more.
    compact: Keep only the latest record of each key.
    compact_records: New records that make another run of the compaction worth it.
    compact_keys: Keys that one run of the compaction remembers.
    compact_lag_ms: Milliseconds that a record is left alone by compaction.
    tombstone_ms: Milliseconds that a record without value (a deletion) is kept by compaction.
    empty_deletes: An empty value from a core of ours is a deletion too: MQTT has no other.
    """

    flush: Flush = "interval"
    interval_ms: Annotated[int, Meta(ge=1)] = 1_000
    segment_bytes: Annotated[int, Meta(ge=1_024, le=1 << 30)] = 268_435_456
    segment_ms: Annotated[int, Meta(ge=0)] = 604_800_000
    preallocate_bytes: Annotated[int, Meta(ge=0)] = 16_777_216
    index_interval_bytes: Annotated[int, Meta(ge=64)] = 4_096
    retention_ms: Annotated[int, Meta(ge=0)] = 0
    retention_bytes: Annotated[int, Meta(ge=0)] = 0
    retention_records: Annotated[int, Meta(ge=0)] = 0
    compact: bool = False
    compact_records: Annotated[int, Meta(ge=1)] = 10_000
    compact_keys: Annotated[int, Meta(ge=1)] = 1_000_000
    compact_lag_ms: Annotated[int, Meta(ge=0)] = 0
    tombstone_ms: Annotated[int, Meta(ge=0)] = 86_400_000
    empty_deletes: bool = False

    @property
    def sync_within(self) -> float | None:
        """Seconds within which what was written is synced; None: whenever."""
        return {"always": 0.0, "interval": self.interval_ms / 1_000}.get(self.flush)
