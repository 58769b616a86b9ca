"""The reports below $SYS, and the page that lists their topics."""

from pathlib import Path

import msgspec
import pytest

from robustmq import metrics
from robustmq.admin.prometheus import Core, Usage
from robustmq.admin.system_topics import Identity, SystemTopics, table

NODE = Identity(7, "10.0.0.1", "robustmq version 1")
PAGE = Path(__file__).resolve().parents[3] / "docs" / "observing.md"


def _core(number: int, **cells: int) -> Core:
    row = [0] * metrics.CELLS
    for name, value in cells.items():
        row[getattr(metrics, name)] = value
    return Core(number, True, 0, row)


def test_a_report_sums_over_the_cores() -> None:
    topics = SystemTopics(NODE)
    cores = [_core(0, CONNECTIONS=2, SESSIONS=5), _core(1, CONNECTIONS=1, SESSIONS=1)]
    payloads = topics.report(1_000.5, 61.9, cores, [Usage("a", 10, 0.0), Usage("b", 5, 0.0)])
    plain = {topic: payloads[f"$SYS/broker/{topic}"] for topic in (
        "version", "uptime", "clients/connected", "clients/disconnected", "clients/total",
        "heap/current",
    )}  # fmt: skip
    assert plain == {
        "version": b"robustmq version 1",
        "uptime": b"61 seconds",
        "clients/connected": b"3",
        "clients/disconnected": b"3",
        "clients/total": b"6",
        "heap/current": b"15",
    }
    assert msgspec.json.decode(payloads["$SYS/brokers/stats/connections"]) == {
        "node_id": 7,
        "node_ip": "10.0.0.1",
        "ts": 1000,
        "value": 3,
    }


def test_maxima_stay() -> None:
    topics = SystemTopics(NODE)
    topics.report(0, 0, [_core(0, CONNECTIONS=9)], [Usage("a", 100, 0.0)])
    payloads = topics.report(60, 60, [_core(0, CONNECTIONS=1)], [Usage("a", 50, 0.0)])
    assert payloads["$SYS/broker/clients/maximum"] == b"9"
    assert payloads["$SYS/broker/heap/maximum"] == b"100"
    assert payloads["$SYS/broker/clients/connected"] == b"1"


def test_averages_follow_the_rate_and_shorter_ones_faster() -> None:
    topics = SystemTopics(NODE)
    first = topics.report(0, 0, [_core(0)], [])
    assert not any("/load/" in topic for topic in first)
    payloads = first
    for minute in range(1, 31):
        row = _core(0, MESSAGES_RECEIVED=600 * minute)
        payloads = topics.report(60 * minute, 60 * minute, [row], [])
    loads = [
        float(payloads[f"$SYS/broker/load/publish/received/{minutes}min"]) for minutes in (1, 5, 15)
    ]
    assert loads[0] == pytest.approx(600)
    assert loads[0] > loads[1] > loads[2] > 400


def test_the_page_lists_every_topic() -> None:
    _, _, rest = PAGE.read_text(encoding="utf-8").partition("system_topics.table() -->\n\n")
    listed, _, _ = rest.partition("\n\n<!-- end")
    assert listed == "\n".join(table()), "write the lines of system_topics.table() to the page"
