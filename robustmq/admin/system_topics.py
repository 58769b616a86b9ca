"""What a node tells below `$SYS`: mosquitto's tree, and RobustMQ's, from the cells of all cores.

Nothing is counted for it: whoever asks for a report hands in what was read from shared memory.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from robustmq import metrics
from robustmq.admin.prometheus import Core, Usage

MINUTES: Final = (1, 5, 15)
"""Over which times there are averages below `$SYS/broker/load`."""

_LOADS: Final[Mapping[str, tuple[int, str]]] = {
    "messages/received": (metrics.PACKETS_RECEIVED, "packets received"),
    "messages/sent": (metrics.PACKETS_SENT, "packets sent"),
    "publish/received": (metrics.MESSAGES_RECEIVED, "PUBLISH packets received"),
    "publish/sent": (metrics.MESSAGES_SENT, "PUBLISH packets sent"),
    "bytes/received": (metrics.BYTES_RECEIVED, "bytes received"),
    "bytes/sent": (metrics.BYTES_SENT, "bytes sent"),
    "connections": (metrics.CONNECTIONS_OPENED, "clients that have connected"),
}
_DROPPED: Final = (
    metrics.MESSAGES_DROPPED_SLOW,
    metrics.MESSAGES_DROPPED_QUEUE,
    metrics.MESSAGES_DROPPED_EXPIRED,
    metrics.MESSAGES_DROPPED_TOO_LARGE,
    metrics.MESSAGES_DROPPED_REFUSED,
)


class Identity(NamedTuple):
    """Whose report it is."""

    node_id: int
    node_ip: str
    version: str


class Sample(NamedTuple):
    """What a node was at a moment: cells summed over its cores, and what else was measured."""

    node: Identity
    cells: Sequence[int]
    uptime_s: int
    resident_bytes: int
    most_resident_bytes: int
    most_connections: int


class Row(NamedTuple):
    """A topic, the type of its payload, what it says, and where that comes from."""

    topic: str
    type: str
    sentence: str
    value: Callable[[Sample], object]


def _cell(*cells: int) -> Callable[[Sample], object]:
    return lambda sample: sum(sample.cells[cell] for cell in cells)


def _cells(**cells: int) -> Callable[[Sample], object]:
    return lambda sample: {name: sample.cells[cell] for name, cell in cells.items()}


def _disconnected(sample: Sample) -> int:
    return max(sample.cells[metrics.SESSIONS] - sample.cells[metrics.CONNECTIONS], 0)


def _nodes(sample: Sample) -> object:
    return [sample.node.node_id]


def _info(sample: Sample) -> object:
    return {"version": sample.node.version, "uptime": sample.uptime_s}


_PLAIN: Final = "$SYS/broker"
_ENVELOPED: Final = "$SYS/brokers"

TREE: Final[tuple[Row, ...]] = (
    Row(f"{_PLAIN}/version", "text", "the server and its version", lambda s: s.node.version),
    Row(f"{_PLAIN}/uptime", "text", "seconds since the start", lambda s: f"{s.uptime_s} seconds"),
    Row(f"{_PLAIN}/clients/connected", "integer", "clients connected", _cell(metrics.CONNECTIONS)),
    Row(
        f"{_PLAIN}/clients/active",
        "integer",
        "the same, under its older name",
        _cell(metrics.CONNECTIONS),
    ),
    Row(f"{_PLAIN}/clients/disconnected", "integer", "sessions offline", _disconnected),
    Row(f"{_PLAIN}/clients/inactive", "integer", "the same, under its older name", _disconnected),
    Row(f"{_PLAIN}/clients/total", "integer", "sessions", _cell(metrics.SESSIONS)),
    Row(
        f"{_PLAIN}/clients/maximum",
        "integer",
        "most clients connected at a report",
        lambda s: s.most_connections,
    ),
    Row(
        f"{_PLAIN}/clients/expired", "integer", "sessions expired", _cell(metrics.SESSIONS_EXPIRED)
    ),
    Row(
        f"{_PLAIN}/messages/received",
        "integer",
        "packets received",
        _cell(metrics.PACKETS_RECEIVED),
    ),
    Row(f"{_PLAIN}/messages/sent", "integer", "packets sent", _cell(metrics.PACKETS_SENT)),
    Row(
        f"{_PLAIN}/publish/messages/received",
        "integer",
        "PUBLISH packets received",
        _cell(metrics.MESSAGES_RECEIVED),
    ),
    Row(
        f"{_PLAIN}/publish/messages/sent",
        "integer",
        "PUBLISH packets sent",
        _cell(metrics.MESSAGES_SENT),
    ),
    Row(
        f"{_PLAIN}/publish/messages/dropped",
        "integer",
        "messages dropped, for whatever reason",
        _cell(*_DROPPED),
    ),
    Row(f"{_PLAIN}/bytes/received", "integer", "bytes received", _cell(metrics.BYTES_RECEIVED)),
    Row(f"{_PLAIN}/bytes/sent", "integer", "bytes sent", _cell(metrics.BYTES_SENT)),
    Row(f"{_PLAIN}/subscriptions/count", "integer", "subscriptions", _cell(metrics.SUBSCRIPTIONS)),
    Row(
        f"{_PLAIN}/shared_subscriptions/count",
        "integer",
        "shared groups",
        _cell(metrics.SHARED_GROUPS),
    ),
    Row(
        f"{_PLAIN}/retained messages/count",
        "integer",
        "retained messages",
        _cell(metrics.RETAINED_MESSAGES),
    ),
    Row(
        f"{_PLAIN}/store/messages/count",
        "integer",
        "messages kept: for sessions, by filter, and retained ones",
        _cell(metrics.INBOX_MESSAGES, metrics.RETAINED_MESSAGES),
    ),
    Row(
        f"{_PLAIN}/messages/stored",
        "integer",
        "the same, under its older name",
        _cell(metrics.INBOX_MESSAGES, metrics.RETAINED_MESSAGES),
    ),
    Row(
        f"{_PLAIN}/heap/current",
        "integer",
        "resident bytes of all processes",
        lambda s: s.resident_bytes,
    ),
    Row(
        f"{_PLAIN}/heap/maximum",
        "integer",
        "most of them at a report",
        lambda s: s.most_resident_bytes,
    ),
    Row(_ENVELOPED, "JSON", "the numbers of the nodes", _nodes),
    Row(f"{_ENVELOPED}/info", "JSON", "`version`, and `uptime` in seconds", _info),
    Row(
        f"{_ENVELOPED}/stats/connections",
        "JSON",
        "clients connected",
        _cell(metrics.CONNECTIONS),
    ),
    Row(
        f"{_ENVELOPED}/stats/subscriptions",
        "JSON",
        "subscriptions",
        _cell(metrics.SUBSCRIPTIONS),
    ),
    Row(
        f"{_ENVELOPED}/metrics/bytes",
        "JSON",
        "`received` and `sent`",
        _cells(received=metrics.BYTES_RECEIVED, sent=metrics.BYTES_SENT),
    ),
    Row(
        f"{_ENVELOPED}/metrics/packets",
        "JSON",
        "`received` and `sent`",
        _cells(received=metrics.PACKETS_RECEIVED, sent=metrics.PACKETS_SENT),
    ),
    Row(
        f"{_ENVELOPED}/metrics/messages",
        "JSON",
        "PUBLISH packets, `received` and `sent`",
        _cells(received=metrics.MESSAGES_RECEIVED, sent=metrics.MESSAGES_SENT),
    ),
)
"""Every topic but those of the averages."""


class SystemTopics:
    """Makes the reports of one node."""

    def __init__(self, node: Identity) -> None:
        self._node = node
        self._most_connections = 0
        self._most_resident = 0
        self._before: tuple[float, list[int]] | None = None
        self._loads: dict[str, float] = {}

    def report(
        self, now_s: float, uptime_s: float, cores: Sequence[Core], processes: Sequence[Usage]
    ) -> dict[str, bytes]:
        """Return the payloads by their topics; `now_s` is the wall clock, in seconds."""
        sample = self._sample(uptime_s, cores, processes)
        self._average(now_s, list(sample.cells))
        payloads = {row.topic: self._payload(now_s, row, sample) for row in TREE}
        for topic, load in self._loads.items():
            payloads[topic] = f"{load:.2f}".encode()
        return payloads

    def _sample(self, uptime_s: float, cores: Sequence[Core], processes: Sequence[Usage]) -> Sample:
        rows = [core.counters for core in cores]
        cells = [sum(row[cell] for row in rows) for cell in range(len(metrics.TABLE))]
        resident = sum(each.resident_bytes for each in processes)
        self._most_connections = max(self._most_connections, cells[metrics.CONNECTIONS])
        self._most_resident = max(self._most_resident, resident)
        return Sample(
            self._node,
            cells,
            int(uptime_s),
            resident,
            self._most_resident,
            self._most_connections,
        )

    def _payload(self, now_s: float, row: Row, sample: Sample) -> bytes:
        value = row.value(sample)
        if row.type == "JSON":
            return enveloped(self._node, now_s, value)
        return str(value).encode()

    def _average(self, now_s: float, cells: list[int]) -> None:
        """Let what came since the last report enter the averages, as mosquitto does."""
        before, self._before = self._before, (now_s, cells)
        if before is None:
            return
        seconds = max(now_s - before[0], 0.001)
        for name, (cell, _) in _LOADS.items():
            rate = (cells[cell] - before[1][cell]) * 60 / seconds
            for minutes in MINUTES:
                topic = _load_topic(name, minutes)
                weight = math.exp(-seconds / (60 * minutes))
                self._loads[topic] = rate + weight * (self._loads.get(topic, 0.0) - rate)


def enveloped(node: Identity, now_s: float, value: object) -> bytes:
    """Return a payload as RobustMQ writes it below `$SYS/brokers`."""
    return msgspec.json.encode(
        {"node_id": node.node_id, "node_ip": node.node_ip, "ts": int(now_s), "value": value}
    )


def _load_topic(name: str, minutes: int) -> str:
    return f"{_PLAIN}/load/{name}/{minutes}min"


def table() -> Iterator[str]:
    """Yield the lines of the table that the manual has of all topics."""
    yield "| topic | payload | what it says |"
    yield "|---|---|---|"
    for row in TREE:
        yield f"| `{row.topic}` | {row.type} | {row.sentence} |"
    spans = ", ".join(f"`{minutes}min`" for minutes in MINUTES)
    for name, (_, sentence) in _LOADS.items():
        topic = f"{_PLAIN}/load/{name}/+"
        yield f"| `{topic}` | decimal | {sentence} in a minute, average over {spans} |"
