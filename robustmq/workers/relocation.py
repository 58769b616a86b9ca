"""The move of a node's data to another number of workers, in a process of its own.

It runs before all others when the data was written with another number. What it writes is a
generation of its own (`storage.layout`), which counts from the renaming of one small file on:
killed at any moment, the move leaves the old data or the new, and is begun anew at the next start.
"""

import select
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Final

from msgspec.structs import replace

from robustmq.broker.catalog import Catalog
from robustmq.broker.departure import Target
from robustmq.broker.log_relocation import Depots
from robustmq.broker.placement import Placement
from robustmq.broker.relocation import Relocation
from robustmq.config import Config, Storage, default_rule
from robustmq.errors import ConfigError, Corrupt
from robustmq.mqtt.session_rows import decode_session, decode_subscription, with_start
from robustmq.policy.principal import client_of
from robustmq.policy.topic_rules import TopicRules
from robustmq.storage.engine import EngineSettings
from robustmq.storage.layout import Layout, open_layout
from robustmq.storage.log import Unwritable
from robustmq.storage.rocksdb_engine import RocksdbEngine
from robustmq.storage.table import Table
from robustmq.workers import log
from robustmq.workers.inheritance import ServerInheritance
from robustmq.workers.stores import Stores

PROGRESS_SECONDS: Final = 1.0
"""Lines about progress in the log are that far apart."""
_STATUS_FAILED: Final = 1
_WAIT_SECONDS: Final = 1.0
_log = log.EventLog("move")


class MqttSessions:
    """What a move must know of the rows of MQTT sessions (`departure.Sessions`)."""

    def client(self, key: bytes, value: bytes) -> tuple[bytes, int]:
        """The client id and the number of the session in a row `s`."""
        _, client_id = client_of(key[1:].decode())
        return client_id.encode(), decode_session(value).number

    def subscription(self, key: bytes, value: bytes) -> tuple[bytes, int] | None:
        """The filter and the start of the subscription in a row `t`; None when it keeps nothing."""
        subscribed = decode_subscription(key[9:], value)
        if subscribed.group is not None or not subscribed.options.qos:
            return None
        return subscribed.topic_filter, subscribed.start

    def starting(self, value: bytes, start: int) -> bytes:
        """The value of a row `t` with another start."""
        return with_start(value, start)


class Reporter:
    """Writes a line about the progress now and then; `now` gives seconds."""

    def __init__(self, workers: int, now: Callable[[], float] = time.monotonic) -> None:
        self._workers = workers
        self._now = now
        self._began = self._said = now()

    def __call__(self, what: str, core: int, rows: int) -> None:
        """Say what is being moved, from which core, and how many rows were read so far."""
        now = self._now()
        if now - self._said >= PROGRESS_SECONDS:
            self._said = now
            _log.info(
                "moving",
                what=what,
                from_core=core,
                of=self._workers,
                rows_read=rows,
                seconds=round(now - self._began, 1),
            )


def relocate(config: Config, workers: int) -> None:
    """Move the data to `workers` cores. Raises OSError, Corrupt; then the old data still counts."""
    layout = open_layout(config.data_path)
    assert layout.workers is not None
    remove_strays(layout)
    draft = layout.successor()
    began = time.monotonic()
    _log.info("the data is moved", from_workers=layout.workers, to_workers=workers)
    try:
        _write(config, layout, draft, workers)
        draft.record(workers)
    except (OSError, Corrupt, ConfigError):
        # A disk that is full is no fuller than before.
        shutil.rmtree(draft.path, ignore_errors=True)
        raise
    _log.info("the data has moved", seconds=round(time.monotonic() - began, 1))
    remove_strays(draft)


def _write(config: Config, layout: Layout, draft: Layout, workers: int) -> None:
    """Write the new generation, and have it on the disk."""
    assert layout.workers is not None
    with ExitStack() as stack:
        # Together they may have the memory that one worker has.
        settings = _settings(config.storage, layout.workers + workers)
        # The reserve of a file is for what comes at once; so many at once may not have the room.
        storage = replace(config.storage, preallocate_bytes=0)
        opened = partial(_opened, settings=settings, storage=storage)
        old = [stack.enter_context(opened(layout, core)) for core in range(layout.workers)]
        new = [stack.enter_context(opened(draft, core)) for core in range(workers)]
        tables = [each.rocksdb.table() for each in old]
        rules = TopicRules(config.topic_rules, default_rule(config.storage))
        catalog = _catalog(config, rules, tables)
        relocation = Relocation(
            tables,
            [Target(each.rocksdb.table(), partial(commit, each)) for each in new],
            sessions=MqttSessions(),
            depots=Depots(old, new),
            rules=rules,
            progress=Reporter(layout.workers),
            catalog=catalog,
            node=config.broker_id,
        )
        try:
            relocation.run()
        except Unwritable as error:
            raise OSError(error.refused.detail) from error
        for each in new:
            each.rocksdb.store.sync()
        _tell_damage(old)
    # Files are finished as their engine is closed.
    for each in new:
        if each.failure is not None:
            raise OSError(each.failure)


def _catalog(config: Config, rules: TopicRules, old: Sequence[Table]) -> Catalog:
    """The topics that were made, as the old cores know; `rules` know then how they are kept."""
    catalog = Catalog(config, rules, Placement(len(old)))
    for table in old:
        catalog.recall(table)
    return catalog


def commit(stores: Stores) -> None:
    """Write what was put and appended, however long the disk takes. Raises OSError."""
    table = stores.rocksdb.table()
    stores.commit()
    while table.written < table.next_commit - 1 or stores.pending:
        if stores.failure is not None:
            raise OSError(stores.failure)
        select.select(stores.filenos(), [], [], _WAIT_SECONDS)
        stores.completed()


def _tell_damage(old: Sequence[Stores]) -> None:
    """Say what was damaged in the old data: it does not come along."""
    for recovery in (recovery for stores in old for recovery in stores.recoveries()):
        places = [*recovery.damaged, *(found.reason for found in recovery.quarantined)]
        for place in places:
            _log.error("stored data is damaged, what was there is lost", place=place)


def remove_strays(layout: Layout) -> None:
    """Remove what an interrupted move, or one that was not, has left. Raises OSError."""
    for path in layout.strays():
        _log.info("old data is removed", path=path)
        shutil.rmtree(path)


@contextmanager
def _opened(
    layout: Layout, core: int, settings: EngineSettings, storage: Storage
) -> Iterator[Stores]:
    path = layout.core_path(core)
    rocksdb = RocksdbEngine(path, settings)
    stores = Stores(rocksdb, path, settings, storage, watch=lambda _: None)
    try:
        yield stores
    finally:
        stores.close()


def _settings(storage: Storage, databases: int) -> EngineSettings:
    return EngineSettings(
        pending_bytes=storage.pending_bytes,
        retry_ms=storage.retry_ms,
        memory_bytes=max(storage.memory_bytes // databases, 1 << 22),
        wal_bytes=storage.wal_bytes,
        flush="os",
    )


def run(inheritance: ServerInheritance) -> None:
    """Move the data of this node to as many workers as it shall have now.

    Ends with a status other than 0, and a line that says why, when that is not possible.
    """
    try:
        relocate(inheritance.config, inheritance.workers)
    except (OSError, Corrupt, ConfigError) as error:
        _log.error("the data could not be moved", reason=str(error))
        raise SystemExit(_STATUS_FAILED) from error
