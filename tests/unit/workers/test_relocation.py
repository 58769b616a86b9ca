"""The move on real databases: what is written, what is refused, and what is said meanwhile."""

import json
import logging
from pathlib import Path

import msgspec
import pytest

from robustmq.broker.placement import Placement
from robustmq.config import Config
from robustmq.errors import Corrupt
from robustmq.mqtt.session_rows import SessionRow, SubscriptionRow, decode_subscription
from robustmq.storage.engine import EngineSettings, LogSettings
from robustmq.storage.layout import open_layout
from robustmq.storage.rocksdb_engine import RocksdbEngine
from robustmq.workers.relocation import MqttSessions, Reporter, commit, relocate
from tests.unit.storage.batches import batch

SESSIONS = 3_000


def u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def write(data: Path, rows: dict[bytes, bytes], workers: int = 1, shard: bool = False) -> None:
    """Data of so many workers, of whom the first has rows."""
    layout = open_layout(str(data))
    layout.record(workers)
    for core in range(workers):
        engine = RocksdbEngine(layout.core_path(core), EngineSettings())
        if not core:
            for key, value in rows.items():
                engine.table().put(key, value)
            commit(engine)
        if shard:
            engine.open(5, LogSettings()).append(batch(1, b"x"), 1, 1_000)
            engine.commit()
        engine.close()


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
    ("rows", "shard", "said"),
    [
        ({b"?": b""}, False, "core 0 has rows of an unknown kind: b'\\?'"),
        ({b"sc": b"nonsense"}, False, "a session's row"),
        ({b"M" + u64(1): b"x"}, False, "a session's backlogs"),
        ({}, True, "core 0 has shards"),
    ],
)
def test_what_cannot_be_moved_stays(
    tmp_path: Path, rows: dict[bytes, bytes], shard: bool, said: str
) -> None:
    write(tmp_path, rows, 1, shard)
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
