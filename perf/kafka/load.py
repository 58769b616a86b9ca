"""The load: raw sockets with prepared requests, so that it costs little beside what it measures.

Run by `perf.kafka` as a process of its own: `python -m perf.kafka.load JSON`, which prints JSON.
"""

import json
import selectors
import socket
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Final

from perf.kafka import traffic
from perf.kafka.traffic import Answer

_READ_BYTES: Final = 1 << 18
_IDLE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Load:
    """What one run does.

    `kind`: "produce", "fetch", or "raw", which is "produce" whose answers are not looked at.
    `places` has for each partition the host and port of the broker that leads it. Each of
    `connections` produces to its share of the partitions, with `window` requests under way, each
    one batch of `records` records of `value_bytes`; with a `rate` so many batches a second in all,
    in an open loop. A Fetch reads all partitions from the start up to `ends`.
    """

    kind: str
    places: list[tuple[str, int]]
    connections: int = 4
    window: int = 4
    records: int = 64
    value_bytes: int = 1024
    acks: int = -1
    seconds: float = 3.0
    warmup: float = 0.5
    rate: float = 0.0
    ends: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """What came of it: bytes of batches, over so many seconds; times from request to answer."""

    bytes: int = 0
    requests: int = 0
    errors: int = 0
    seconds: float = 0.0
    p50_us: float = 0.0
    p99_us: float = 0.0
    cpu_seconds: float = 0.0
    fault: str = ""

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self.bytes / max(self.seconds, 1e-9)


class _Line:
    """One connection: requests go out as the socket takes them, answers are cut out."""

    def __init__(self, place: tuple[str, int]) -> None:
        self.sock = socket.create_connection(place)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self._out: deque[memoryview] = deque()
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._partial = bytearray()
        self.sent: deque[float] = deque()
        """When the requests were made that are not answered."""

    def send(self, request: bytes, at: float) -> None:
        """Queue a request."""
        self.sent.append(at)
        self._out.append(memoryview(request))
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes."""
        while self._out:
            try:
                count = self.sock.send(self._out[0])
            except BlockingIOError:
                return
            if count < len(self._out[0]):
                self._out[0] = self._out[0][count:]
                return
            self._out.popleft()

    @property
    def is_behind(self) -> bool:
        """Whether the socket has not taken all."""
        return bool(self._out)

    def answers(self) -> list[bytearray]:
        """Return the answers that have come. Raises ConnectionError when nobody is there."""
        try:
            count = self.sock.recv_into(self._view)
        except BlockingIOError:
            return []
        if not count:
            raise ConnectionError("the broker has closed the connection")
        self._partial += self._view[:count]
        found = []
        at = 0
        while len(self._partial) >= at + 4:
            end = at + 4 + int.from_bytes(self._partial[at : at + 4], "big")
            if len(self._partial) < end:
                break
            found.append(self._partial[at + 4 : end])
            at = end
        if at:
            del self._partial[:at]
        return found


class Producers:
    """Produces in a closed loop, or with a rate in an open one."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._payload = traffic.batch(load.records, load.value_bytes)
        self._lines: list[_Line] = []
        self._requests: dict[_Line, deque[bytes]] = {}
        self._selector = selectors.DefaultSelector()
        for place, partitions in self._shares():
            line = _Line(place)
            self._lines.append(line)
            self._requests[line] = deque(
                traffic.produce(self._payload, number, load.acks) for number in partitions
            )
            self._selector.register(line.sock, selectors.EVENT_READ, line)
        self._times: list[float] = []
        self._report = Report()

    def _shares(self) -> list[tuple[tuple[str, int], list[int]]]:
        """The place and the partitions of each connection; several may share a partition."""
        places = self._load.places
        count = self._load.connections
        if count >= len(places):
            return [(places[each % len(places)], [each % len(places)]) for each in range(count)]
        shares: list[tuple[tuple[str, int], list[int]]] = []
        by_place: dict[tuple[str, int], list[int]] = {}
        for number, place in enumerate(places):
            by_place.setdefault(place, []).append(number)
        for place, numbers in by_place.items():
            lines = max(count // len(by_place), 1)
            shares += [
                (place, numbers[each::lines]) for each in range(lines) if numbers[each::lines]
            ]
        return shares

    def _send(self, line: _Line, at: float) -> None:
        requests = self._requests[line]
        requests.rotate(-1)
        line.send(requests[-1], at)
        self._watch(line)

    def _watch(self, line: _Line) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if line.is_behind else 0)
        if self._selector.get_key(line.sock).events != events:
            self._selector.modify(line.sock, events, line)

    def run(self) -> Report:
        """Produce for as long as it was planned."""
        begin = time.perf_counter()
        measured = begin + self._load.warmup
        end = measured + self._load.seconds
        cpu = time.process_time()
        is_measured = False
        due = begin
        step = 1.0 / self._load.rate if self._load.rate else 0.0
        if not step:
            for line in self._lines:
                for _ in range(self._load.window):
                    self._send(line, begin)
        number = 0
        while (now := time.perf_counter()) < end:
            if not is_measured and now >= measured:
                is_measured, cpu = True, time.process_time()
                self._report.bytes = self._report.requests = 0
                self._times.clear()
                measured = now
            while step and due <= now:
                self._send(self._lines[number % len(self._lines)], due)
                number += 1
                due += step
            wait = min(due - now, end - now) if step else end - now
            self._turn(max(wait, 0.0), sends=not step)
        self._report.seconds = time.perf_counter() - measured
        self._report.cpu_seconds = time.process_time() - cpu
        self._times.sort()
        if self._times:
            self._report.p50_us = self._times[len(self._times) // 2] * 1e6
            self._report.p99_us = self._times[int(len(self._times) * 0.99)] * 1e6
        return self._report

    def _turn(self, wait: float, *, sends: bool) -> None:
        for key, events in self._selector.select(wait):
            line: _Line = key.data
            if events & selectors.EVENT_WRITE:
                line.flush()
                self._watch(line)
            if not events & selectors.EVENT_READ:
                continue
            answers = line.answers()
            now = time.perf_counter()
            for answer in answers:
                is_raw = self._load.kind == "raw"
                self._report.errors += 0 if is_raw else traffic.produced(answer).errors
                self._report.requests += 1
                self._report.bytes += len(self._payload)
                self._times.append(now - line.sent.popleft())
                if sends:
                    self._send(line, now)


class Consumers:
    """Fetches all that there is, each connection its share of the partitions."""

    def __init__(self, load: Load) -> None:
        self._load = load
        by_place: dict[tuple[str, int], dict[int, int]] = {}
        for number, place in enumerate(load.places):
            by_place.setdefault(place, {})[number] = 0
        self._offsets: dict[_Line, dict[int, int]] = {}
        self._selector = selectors.DefaultSelector()
        for place, offsets in by_place.items():
            count = max(min(load.connections // len(by_place), len(offsets)), 1)
            for each in range(count):
                line = _Line(place)
                self._offsets[line] = dict(list(offsets.items())[each::count])
                self._selector.register(line.sock, selectors.EVENT_READ, line)

    def _is_done(self, line: _Line) -> bool:
        ends = self._load.ends
        return all(at >= ends[number] for number, at in self._offsets[line].items())

    def run(self) -> Report:
        """Read everything."""
        report = Report()
        times: list[float] = []
        begin, cpu = time.perf_counter(), time.process_time()
        open_lines = set(self._offsets)
        for line, offsets in self._offsets.items():
            line.send(traffic.fetch(offsets), begin)
        while open_lines:
            ready = self._selector.select(_IDLE_SECONDS)
            if not ready:
                report.fault = "the broker does not answer a Fetch"
                break
            for key, _ in ready:
                line = key.data
                for answer in line.answers():
                    now = time.perf_counter()
                    times.append(now - line.sent.popleft())
                    found: Answer = traffic.fetched(answer, self._offsets[line])
                    report.requests += 1
                    report.errors += found.errors
                    report.bytes += found.bytes
                    if found.errors or self._is_done(line):
                        open_lines.discard(line)
                    else:
                        line.send(traffic.fetch(self._offsets[line]), now)
        report.seconds = time.perf_counter() - begin
        report.cpu_seconds = time.process_time() - cpu
        times.sort()
        report.p50_us = times[len(times) // 2] * 1e6 if times else 0.0
        report.p99_us = times[int(len(times) * 0.99)] * 1e6 if times else 0.0
        return report


def main(words: str) -> None:
    """Do what the JSON says, and print what came of it."""
    fields = json.loads(words)
    fields["places"] = [tuple(place) for place in fields["places"]]
    load = Load(**fields)
    try:
        report = (Consumers if load.kind == "fetch" else Producers)(load).run()
    except OSError as error:
        report = Report(fault=str(error))
    print(json.dumps(asdict(report)))


if __name__ == "__main__":
    main(sys.argv[1])
