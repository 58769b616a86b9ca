"""A `Store` in memory, for machines under test."""

from collections.abc import Iterator


class MemoryStore:
    """Rows in a dict, walked in order."""

    def __init__(self, rows: dict[bytes, bytes] | None = None) -> None:
        self.rows = dict(rows or {})

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.rows[key] = value

    def delete(self, key: bytes) -> None:
        self.rows.pop(key, None)

    def walk(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        keys = sorted(key for key in self.rows if key.startswith(prefix) and key >= start)
        return ((key, self.rows[key]) for key in keys)
