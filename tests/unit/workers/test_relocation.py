"""The move on real databases: what is written, what is refused, and what is said meanwhile."""

import errno
import json
import logging
import os
import threading
from functools import partial
from pathlib import Path

import msgspec
import pytest

from robustmq._kernel.batch import records
from robustmq.broker import log_rows
from robustmq.broker.placement import Placement
from robustmq.config import Config, Engine, Storage, TopicRule
from robustmq.errors import Corrupt
from robustmq.mqtt.session_rows import SessionRow, SubscriptionRow, decode_subscription
from robustmq.policy.principal import Principal
from robustmq.storage.engine import EngineSettings
from robustmq.storage.files import SystemFiles
from robustmq.storage.layout import Layout, open_layout
from robustmq.storage.log import Log
from robustmq.storage.rocksdb_engine import RocksdbEngine
from robustmq.storage.rocksdb_rows import KEY
from robustmq.storage.rocksdb_store import DATA
from robustmq.workers.relocation import MqttSessions, Reporter, commit, relocate
from robustmq.workers.stores import Stores
from tests.integration.supervised import until
from tests.unit.storage.batches import batch, keyed

SESSIONS = 3_000


def u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def write(data: Path, rows: dict[bytes, bytes], workers: int = 1) -> None:
    """Data of so many workers, of whom the first has rows."""
    layout = open_layout(str(data))
    layout.record(workers)
    for core in range(workers):
        stores = opened(layout, core)
        if not core:
            for key, value in rows.items():
                stores.rocksdb.table().put(key, value)
            commit(stores)
        stores.close()


def opened(layout: Layout, core: int, storage: Storage = Storage()) -> Stores:  # noqa: B008
    """The engines of a core."""
    path = layout.core_path(core)
    settings = EngineSettings()
    return Stores(RocksdbEngine(path, settings), path, settings, storage, watch=lambda _: None)


def read(data: Path) -> list[dict[bytes, bytes]]:
    """The rows of all cores that count."""
    layout = open_layout(str(data))
    found = []
    for core in range(layout.workers or 0):
        engine = RocksdbEngine(layout.core_path(core), EngineSettings())
        found.append(dict(engine.table().walk(b"", b"\xff" * 20)))
        engine.close()
    return found


def test_sessions_go_home(tmp_path: Path) -> None:
    rows = {}
    for number in range(SESSIONS):
        session = SessionRow(number, 60, 5, 1, "x" * 1_000, None)
        rows[b"s%d" % number] = msgspec.msgpack.encode(session)
    write(tmp_path, rows, 2)
    relocate(Config(data_path=str(tmp_path)), 3)
    assert open_layout(str(tmp_path)).workers == 3
    assert not open_layout(str(tmp_path)).strays()
    found = read(tmp_path)
    for core, there in enumerate(found):
        mine = {key: value for key, value in there.items() if key[:1] == b"s"}
        assert mine
        assert all(Placement(3).home_of(key[1:]) == core for key in mine)
        assert mine.items() <= rows.items()
    assert sum(key[:1] == b"s" for there in found for key in there) == SESSIONS


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({b"?": b""}, "core 0 has rows of an unknown kind: b'\\?'"),
        ({b"sc": b"nonsense"}, "a session's row"),
        ({b"M" + u64(1): b"x"}, "a session's backlogs"),
        ({b"Qta": b"\0\0\0\1\7"}, "log 1 has an unknown engine: 7"),
        ({b"Qta": b"\0"}, "the row of a log"),
    ],
)
def test_what_cannot_be_moved_stays(tmp_path: Path, rows: dict[bytes, bytes], said: str) -> None:
    write(tmp_path, rows)
    with pytest.raises(Corrupt, match=said):
        relocate(Config(data_path=str(tmp_path)), 2)
    layout = open_layout(str(tmp_path))
    assert (layout.workers, layout.generation, layout.strays()) == (1, 1, [])
    assert read(tmp_path) == [rows]


def test_the_rows_of_mqtt_are_understood() -> None:
    sessions = MqttSessions()
    session = msgspec.msgpack.encode(SessionRow(7, 60, 5, 1, None, None))
    assert sessions.client(b"sme", session) == (b"me", 7)

    def subscription(flags: int) -> bytes:
        return msgspec.msgpack.encode(SubscriptionRow(flags, 9, b"id"))

    key = b"t" + u64(7)
    assert sessions.subscription(key + b"a/#", subscription(1 | 4)) == (b"a/#", 9)
    assert sessions.subscription(key + b"a/#", subscription(0 | 4)) is None
    assert sessions.subscription(key + b"$share/g/a", subscription(2)) is None
    moved = decode_subscription(b"a", sessions.starting(subscription(2 | 8), 1 << 40))
    assert moved.start == 1 << 40
    assert moved.options == decode_subscription(b"a", subscription(2 | 8)).options
    with pytest.raises(Corrupt):
        sessions.starting(b"nonsense", 1)


def test_progress_is_told_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    times = iter([0.0, 0.5, 1.0, 1.9, 2.1, 2.2])
    with caplog.at_level(logging.INFO, "robustmq"):
        report = Reporter(2, lambda: next(times))
        for rows in range(1_000, 6_000, 1_000):
            report("sessions", 1, rows)
    fields = [json.loads(json.dumps(vars(record)["fields"])) for record in caplog.records]
    assert [each["rows_read"] for each in fields] == [2_000, 4_000]
    assert fields[0] == {
        "what": "sessions", "from_core": 1, "of": 2, "rows_read": 2_000, "seconds": 1.0,
    }  # fmt: skip


RULES = (
    TopicRule(filter="db/#", own_shard=True),
    TopicRule(filter="files/#", own_shard=True, engine="segment", flush="always"),
    TopicRule(filter="all/#", retention_records=1_000_000),
)
BATCHES = 150
OWN = TopicRule(filter="#", own_shard=True)
COMPACTS = Storage(compact_records=1)


def core_of(name: bytes, core: int, workers: int) -> int:
    """Where a log of an old core is kept by so many workers."""
    return Placement(workers).log_core(name[1:]) if name[:1] == b"t" else core % workers


def found_logs(
    layout: Layout, rule: TopicRule = OWN
) -> dict[tuple[int, bytes], list[tuple[int, bytes | None]]]:
    """What each log has, by core and name: offsets and payloads; and its bounds are right."""
    found = {}
    for core in range(layout.workers or 0):
        stores = opened(layout, core)
        for key, value in list(stores.rocksdb.table().walk(b"Q", b"R")):
            number, engine, *_ = log_rows.decode_listed(value)
            log = stores.open(number, engine, rule)
            has: list[tuple[int, bytes | None]] = []
            at = log.start_offset
            while at < log.end_offset:
                for base, span, data in log.read(at, 1 << 16):
                    first = int.from_bytes(data[:8], "big")
                    has += [
                        (base + offset - first, payload)
                        for _, _, offset, _, payload, _ in records(data)
                        if base + offset - first >= log.start_offset
                    ]
                    at = base + span
            assert at == log.end_offset
            found[core, key[1:]] = has
            note = stores.rocksdb.table().get(log_rows.note_key(number))
            assert note is None or int.from_bytes(note[:8], "big") == log.end_offset
        assert [each for recovery in stores.recoveries() for each in recovery.quarantined] == []
        stores.close()
    return found


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 2), (2, 1)])
def test_logs_go_to_the_cores_that_keep_them(tmp_path: Path, before: int, after: int) -> None:
    layout = open_layout(str(tmp_path))
    layout.record(before)
    names = [b"t%s/%d" % (kind, number) for kind in (b"db", b"files") for number in range(8)]
    for core in range(before):
        stores = opened(layout, core)
        own = [name for name in names if core_of(name, 0, before) == core]
        for number, name in enumerate([*own, b"rall/#"], 5):
            engine: Engine = "segment" if name.startswith(b"tfiles") else "rocksdb"
            log = stores.open(number, engine, TopicRule(filter="#"))
            if number % 2:
                # More than may lie between its offsets and those of others.
                log.reset(1 << 40)
            for each in range(BATCHES):
                payload = b"%d of %d %s" % (each, core, name)
                log.append(batch(3, payload, 1_000 * each + core), 3, 1_000 * each)
            log.trim(log.start_offset + 4)
            row = log_rows.encode_listed(number, engine)
            stores.rocksdb.table().put(log_rows.listed_key(name), row)
        stores.rocksdb.table().put(b"Nshard", u64(40 + core))
        commit(stores)
        stores.close()
    old = found_logs(layout)
    assert sum(map(len, old.values())) == (3 * BATCHES - 4) * (len(names) + before)
    relocate(Config(data_path=str(tmp_path), topic_rules=RULES), after)
    layout = open_layout(str(tmp_path))
    assert (layout.workers, layout.strays()) == (after, [])
    new = found_logs(layout)
    homes = {(core_of(name, core, after), name) for core, name in old}
    assert new.keys() == homes
    for home, has in new.items():
        sources = {
            core: there
            for (core, name), there in old.items()
            if (core_of(name, core, after), name) == home
        }
        if len(sources) == 1:
            assert has == next(iter(sources.values()))
            continue
        assert len(has) == sum(map(len, sources.values()))
        assert [offset for offset, _ in has] == sorted({offset for offset, _ in has})
        for core, there in sources.items():
            of_core = [payload for _, payload in has if b"of %d " % core in (payload or b"")]
            assert of_core == [payload for _, payload in there]
        turns = [int((payload or b"").split()[0]) for _, payload in has]
        assert turns == sorted(turns), "by time"
    for rows in read(tmp_path):
        numbers = [log_rows.decode_listed(each).number for k, each in rows.items() if k[:1] == b"Q"]
        assert sorted(numbers) == list(range(39 + before, 39 + before + len(numbers)))
        assert int.from_bytes(rows[b"Nshard"], "big") == 39 + before + len(numbers)


def logs_of_one(data: Path, rule: TopicRule, count: int) -> Layout:
    """Data of one worker with a log of each engine, which has `count` batches of 10 records."""
    layout = open_layout(str(data))
    layout.record(1)
    stores = opened(layout, 0, COMPACTS if rule.compact else Storage())
    for number, engine in ENGINES.items():
        log = stores.open(number, engine, rule)
        for each in range(count):
            # Every third batch has a key that comes once, among others that come again.
            keys = [b"once %d" % (each - each % 3), *[b"a", b"b", b"c"] * 3]
            log.append(keyed([(key, b"%d" % each) for key in keys], 1_000 * each), 10, 1_000)
        row = log_rows.encode_listed(number, engine)
        stores.rocksdb.table().put(log_rows.listed_key(b"t" + engine.encode()), row)
    commit(stores)
    stores.close()
    return layout


def compacted(stores: Stores, log: Log, size: int) -> bool:
    """Go on with a log that had so many bytes; says whether it has hardly any left."""
    log.retain(1, 1 << 30)
    stores.commit()
    stores.completed()
    return log.size_bytes < size // 3


ENGINES: dict[int, Engine] = {7: "rocksdb", 8: "segment"}
COMPACT = TopicRule(filter="#", own_shard=True, compact=True, segment_bytes=4_096)


def test_offsets_stay_where_compaction_has_left_gaps(tmp_path: Path) -> None:
    layout = logs_of_one(tmp_path, COMPACT, 400)
    stores = opened(layout, 0, COMPACTS)
    for number, engine in ENGINES.items():
        log = stores.open(number, engine, COMPACT)
        until(partial(compacted, stores, log, log.size_bytes), "the log is compacted")
    stores.close()
    old = found_logs(layout, COMPACT)
    for has in old.values():
        # The last file of a log is not compacted.
        assert 134 + 3 <= len(has) <= 134 + 3 + 100
        assert len({offset // 10 for offset, _ in has}) < 200
    relocate(Config(data_path=str(tmp_path), topic_rules=(COMPACT,)), 2)
    new = found_logs(open_layout(str(tmp_path)), COMPACT)
    assert {name: has for (_, name), has in new.items()} == {
        name: has for (_, name), has in old.items()
    }


def test_what_is_damaged_is_told_and_the_rest_keeps_its_offsets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layout = logs_of_one(tmp_path, OWN, 20)
    before = found_logs(layout)
    stores = opened(layout, 0)
    key = KEY.pack(7, 50)
    value = stores.rocksdb.store.get(DATA, key)
    assert value is not None
    stores.rocksdb.store.write([(DATA, key, value[:-1] + b"!")])
    stores.close()
    (file,) = Path(layout.core_path(0), "segments", "8").glob("*.log")
    data = file.read_bytes()
    at = data.index(u64(50)) + 100
    file.write_bytes(data[:at] + b"!!!" + data[at + 3 :])
    with caplog.at_level(logging.ERROR, "robustmq"):
        relocate(Config(data_path=str(tmp_path), topic_rules=(OWN,)), 2)
    told = [vars(record)["fields"]["place"] for record in caplog.records]
    assert len(told) == 2
    after = found_logs(open_layout(str(tmp_path)))
    lost = range(50, 60)
    assert {name: has for (_, name), has in after.items()} == {
        name: [each for each in has if each[0] not in lost] for (_, name), has in before.items()
    }


@pytest.mark.parametrize("fails", ["ftruncate", "pwritev", "sync_directory"])
def test_files_that_cannot_be_finished_end_the_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    layout = logs_of_one(tmp_path, OWN, 20)
    before = found_logs(layout)
    real = getattr(SystemFiles, fails)
    with monkeypatch.context() as patched:

        def full(*arguments: object) -> object:
            if threading.current_thread() is threading.main_thread():
                return real(*arguments)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patched.setattr(SystemFiles, fails, full)
        with pytest.raises(OSError, match="No space left"):
            relocate(Config(data_path=str(tmp_path), topic_rules=(OWN,)), 2)
    layout = open_layout(str(tmp_path))
    assert (layout.workers, layout.generation, layout.strays()) == (1, 1, [])
    assert found_logs(layout) == before


@pytest.mark.parametrize("tenant", ["default", "acme"])
def test_a_session_moves_to_the_home_of_its_client_id_whatever_its_tenant(tenant: str) -> None:
    row = SessionRow(7, 60, 5, 0, None, None)
    key = b"s" + Principal("c@x", tenant=tenant).identity.encode()
    assert MqttSessions().client(key, msgspec.msgpack.encode(row)) == (b"c@x", 7)
