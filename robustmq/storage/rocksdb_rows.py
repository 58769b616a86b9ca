"""How the logs lie in the database: keys and values, and walks over those of one shard."""

import struct
from collections.abc import Iterator
from typing import Final

from rocksdict import RdictIter

from robustmq.errors import Corrupt
from robustmq.storage.header import header_at
from robustmq.storage.rocksdb_store import DATA, INDEX, RocksdbStore

KEY: Final = struct.Struct(">IQ")
"""Of a batch: the shard and its base offset. Of damage: the shard and where it begins."""
INDEX_KEY: Final = struct.Struct(">IQQ")
"""The shard, the newest time of all before a batch, the batch's base offset."""
INDEX_VALUE: Final = struct.Struct(">Q")
"""The bytes ever appended before that batch."""
SHARD: Final = struct.Struct(">I")
STATE: Final = struct.Struct(">QQQQQQ")


def span_of(data: bytes) -> int:
    """The offsets that a stored batch spans."""
    header = header_at(data, 0)
    return header.next_offset - header.base_offset


class Unreadable(Corrupt):
    """A block of one of the database's own tables is damaged."""


class ShardRows:
    """The batches and the index entries of one shard, in order. Damage raises Unreadable."""

    def __init__(self, store: RocksdbStore, shard: int) -> None:
        self._store = store
        self._shard = shard
        self.entries_from = (0, 0)
        """The key of the first entry of the index that still matters."""

    def batches(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """Yield (base offset, bytes) from the last batch that begins at or before `offset` on."""
        prefix = SHARD.pack(self._shard)
        walk = self._store.walk(DATA)
        walk.seek_for_prev(KEY.pack(self._shard, offset))
        if not walk.valid() or walk.key()[:4] != prefix:
            _check(walk)
            walk.seek(KEY.pack(self._shard, offset))
        while walk.valid():
            key = walk.key()
            if key[:4] != prefix:
                return
            yield KEY.unpack(key)[1], walk.value()
            walk.next()
        _check(walk)

    def entries(self) -> Iterator[tuple[int, int, int]]:
        """Yield (newest time before, base offset, bytes before) of the index in order."""
        walk = self._store.walk(INDEX)
        walk.seek(INDEX_KEY.pack(self._shard, *self.entries_from))
        prefix = SHARD.pack(self._shard)
        while walk.valid() and (key := walk.key())[:4] == prefix:
            _, newest_ms, offset = INDEX_KEY.unpack(key)
            yield newest_ms, offset, INDEX_VALUE.unpack(walk.value())[0]
            walk.next()
        _check(walk)


def _check(walk: RdictIter) -> None:
    """Raise Corrupt when the database could not go on: a block of a table is damaged."""
    try:
        walk.status()
    except Exception as error:
        raise Unreadable(str(error)) from error
