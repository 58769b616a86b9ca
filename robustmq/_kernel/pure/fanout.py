"""From a batch of records to every subscriber of this core: readable twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from robustmq._kernel.pure.alias import after_variable_integer, variable_integer
from robustmq._kernel.pure.batch import HEADER, RecordView, count_of, read_record
from robustmq._kernel.pure.run import IDS, Run, id_position
from robustmq.errors import Corrupt
from robustmq.metrics import MESSAGES_DROPPED_TOO_LARGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from robustmq._kernel.pure.turn import Turn
    from robustmq._kernel.pure.window import Window

    Tap = Callable[[bytes, int, int, int], object]
    Describe = Callable[[bytes, int], tuple[bytes, int, int]]

MAX_TOPIC: Final = 65535
"""Bytes of a topic name at most (MQTT5 1.5.4)."""
MAX_REMAINING: Final = 268_435_455
"""The remaining length of a packet at most (MQTT5 2.1.4)."""
LARGE_VALUE: Final = 1 << 27
"""A payload of more bytes than this is a run of its own, for it may not fit into a packet."""
TENANT_MARK: Final = b"$\1"
"""What the topics of tenants begin with (`message.tenancy`)."""
EXPIRY: Final = 2
"""The identifier of the message expiry interval property (MQTT5 3.3.2.3.3)."""


class Group:
    """Subscribers of a topic for whom a message is encoded alike.

    `version` is 3, 4 or 5, `qos` the granted maximum; `identifiers` are the subscription
    identifier properties, encoded (MQTT 5). The retain bit is kept with `retain_as_published`
    (MQTT5 3.8.3.1), else cleared. With `no_local` the windows of the publisher itself (by
    `key`) are passed over. The windows of a `stored` group get records of QoS 1 and 2 from
    their inbox, so `Fanout.deliver` passes over it with these.
    """

    __slots__ = (
        "identifiers", "no_local", "qos", "retain_as_published", "stored", "version", "windows",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917
        self,
        version: int,
        qos: int,
        retain_as_published: bool,
        no_local: bool,
        identifiers: bytes,
        windows: list[Window],
        stored: bool = False,
    ) -> None:
        self.version = version
        self.qos = qos
        self.retain_as_published = retain_as_published
        self.no_local = no_local
        self.identifiers = identifiers
        self.windows = windows
        self.stored = stored


class Route:
    """Who gets the messages of one topic: groups of windows, and taps.

    A tap is called with `(batch, start, stop, count)`: `count` records of the topic are the
    bytes `start` … `stop - 1` of the batch. `alias` is the topic's alias for MQTT 5
    clients (0: none); a number must stand for the same topic for ever. With an `origin`, runs
    are marked with it, and their `source` says where their records lie: (batch, byte position
    of the first record, number of records to skip).
    """

    __slots__ = ("alias", "groups", "origin", "taps")

    def __init__(
        self, groups: list[Group], taps: list[Tap], alias: int, origin: object = None
    ) -> None:
        self.groups = groups
        self.taps = taps
        self.alias = alias
        self.origin = origin


class Fanout:
    """Delivers batches; resolves a topic once and keeps the route until it is forgotten.

    `resolve(topic) -> Route`; `describe(headers, version) -> (properties, deadline_ms,
    publisher)` turns a record's header block into the MQTT properties to send, the message
    expiry interval first, the wall clock time when the message ends (0: never) and the key of
    the publisher's window (0: unknown). It is not asked about a record without headers.
    `routes` are the routes kept, at most `max_routes`; all are dropped beyond that.
    """

    __slots__ = ("_describe", "_max_routes", "_resolve", "_turn", "routes")

    def __init__(
        self,
        turn: Turn,
        resolve: Callable[[bytes], Route],
        describe: Describe,
        max_routes: int,
    ) -> None:
        self._turn = turn
        self._resolve = resolve
        self._describe = describe
        self._max_routes = max_routes
        self.routes: dict[bytes, Route] = {}

    def deliver(self, batch: bytes) -> None:
        """Give every record of `batch` to the subscribers of its key; Corrupt when damaged.

        Records without a key, or with one that is no MQTT topic for its length, are passed
        over. The runs of records before the damaged one have been delivered.
        """
        self._walk(batch, None, 0)

    def deliver_to(self, route: Route, batch: bytes, position: int = 0) -> None:
        """Give every record of `batch` to `route`, whatever its key; Corrupt when damaged.

        With a `position` above 0 the runs are stored ones: record i of the batch has the
        position `position + i`. Whether a group is `stored` plays no part.
        """
        self._walk(batch, route, position)

    def encode(self, group: Group, batch: bytes, position: int, packet_id: int) -> Run | None:
        """Return the one record of `batch` as a stored run with that packet identifier.

        The core's sequence is not touched. None when it is no message of QoS 1 or 2 for this
        group, or larger than a packet can be. Raises Corrupt when it is damaged, ValueError
        when it is not one record or the identifier is not of 1 … 65535.
        """
        if count_of(batch) != 1 or not 1 <= packet_id <= IDS:
            raise ValueError("one record is encoded, and with an identifier")
        view = read_record(batch, HEADER, len(batch))
        if view is None:
            raise Corrupt("record batch: its first record")
        qos = min(view.attributes & 3, group.qos)
        if view.key is None or len(view.key) > MAX_TOPIC or not qos:
            return None
        properties, deadline = b"", 0
        if view.headers[0]:
            properties, deadline, _ = self._describe(view.headers, group.version)
        retain = group.retain_as_published and bool(view.attributes & 4)
        run = self._encode(group, qos, retain, [view], properties, packet_id)
        if run is not None:
            run.position = position
            run.deadline = deadline
            if deadline and group.version == 5:
                run.expiry_at = _expiry_position(run.data, qos)
        return run

    def forget(self, topic: bytes | None = None) -> None:
        """Learn that the subscriptions of `topic` (or of everything) have changed."""
        if topic is None:
            self.routes.clear()
        else:
            self.routes.pop(topic, None)

    def _walk(self, batch: bytes, fixed: Route | None, position: int) -> None:
        total = count_of(batch)
        at = HEADER
        views: list[RecordView] = []
        for i in range(total):
            view = read_record(batch, at, len(batch))
            if view is None:
                raise Corrupt(f"record batch: record {i} of {total}")
            if views and not _alike(views[0], view):
                self._deliver_run(fixed, batch, views, position and position + i - len(views))
                views = []
            views.append(view)
            at = view.end
        if views:
            self._deliver_run(fixed, batch, views, position and position + total - len(views))

    def _route(self, topic: bytes) -> Route:
        route = self.routes.get(topic)
        if route is None:
            route = self._resolve(topic)
            if len(self.routes) >= self._max_routes:
                self.routes.clear()
            self.routes[topic] = route
        return route

    def _deliver_run(
        self, fixed: Route | None, batch: bytes, views: list[RecordView], position: int
    ) -> None:
        """Deliver records that are alike to `fixed`, or to the route of their key."""
        first = views[0]
        if first.key is None or len(first.key) > MAX_TOPIC:
            return
        route = fixed if fixed is not None else self._route(first.key)
        for tap in route.taps:
            tap(batch, first.start, views[-1].end, len(views))
        encoded: dict[tuple[int, int, bool, bytes], Run | None] = {}
        properties, deadline, publisher = b"", 0, 0
        for group in route.groups:
            if group.stored and fixed is None and first.attributes & 3:
                continue
            qos = min(first.attributes & 3, group.qos)
            retain = group.retain_as_published and bool(first.attributes & 4)
            if first.headers[0]:
                properties, deadline, publisher = self._describe(first.headers, group.version)
            alike = group.version, qos, retain, group.identifiers
            if alike not in encoded:
                run = self._encode(group, qos, retain, views, properties)
                encoded[alike] = run
                if run is not None:
                    run.alias = route.alias if group.version == 5 else 0
                    run.position = position
                    run.deadline = deadline
                    if deadline and group.version == 5:
                        run.expiry_at = _expiry_position(run.data, qos)
                    if route.origin is not None:
                        run.origin = route.origin
                        run.source = batch, first.start, 0
            run = encoded[alike]
            if run is None:
                dropped = len(views) * len(group.windows)
                self._turn.row[MESSAGES_DROPPED_TOO_LARGE] += dropped
                continue
            for window in group.windows:
                if not (group.no_local and publisher and window.key == publisher):
                    window.offer(run)

    def _encode(  # noqa: PLR0917
        self,
        group: Group,
        qos: int,
        retain: bool,
        views: list[RecordView],
        properties: bytes,
        own_id: int = 0,
    ) -> Run | None:
        """Return the records as PUBLISH packets with ids from `own_id`, or the core's sequence.

        None when one of them is larger than a packet can be.
        """
        topic = _local(views[0].key or b"")
        head = len(topic).to_bytes(2, "big") + topic
        block = b""
        if group.version == 5:
            properties += group.identifiers
            block = variable_integer(len(properties)) + properties
        fixed = len(head) + (2 if qos else 0) + len(block)
        if fixed + max(len(view.value or b"") for view in views) > MAX_REMAINING:
            return None
        first_byte = bytes((0x30 | qos << 1 | retain,))
        sequence = own_id - 1
        if not own_id:
            sequence = self._turn.sequence + 1 if qos else 0
            self._turn.sequence += len(views) if qos else 0
        parts: list[bytes] = []
        ends: list[int] = []
        at = 0
        packet_id = b""
        for i, view in enumerate(views):
            value = view.value or b""
            length = variable_integer(fixed + len(value))
            if qos:
                packet_id = ((sequence + i) % IDS + 1).to_bytes(2, "big")
            parts += (first_byte, length, head, packet_id, block, value)
            at += 1 + len(length) + fixed + len(value)
            ends.append(at)
        run = Run(b"".join(parts), ends, qos, 0 if own_id else sequence)
        run.since = self._turn.now_ms
        return run


def _local(topic: bytes) -> bytes:
    """Return a topic as clients know it: `message.tenancy.local`."""
    end = topic.find(b"\1", len(TENANT_MARK)) if topic.startswith(TENANT_MARK) else -1
    return topic if end < 0 else topic[end + 1 :].removeprefix(b"/")


def _alike(first: RecordView, view: RecordView) -> bool:
    """Say whether two records belong to one run: their packets differ in payload and id only."""
    return (
        view.attributes == first.attributes
        and view.key == first.key
        and first.headers[0] == 0
        and view.headers[0] == 0
        and len(first.value or b"") <= LARGE_VALUE
        and len(view.value or b"") <= LARGE_VALUE
    )


def _expiry_position(packet: bytes, qos: int) -> int:
    """Return where the message expiry interval lies in `packet`, if it is its first property."""
    at = id_position(packet, 0) + (2 if qos else 0)
    length = 0
    shift = 0
    end = after_variable_integer(packet, at)
    for byte in packet[at:end]:
        length |= (byte & 127) << shift
        shift += 7
    return end + 1 if length >= 5 and packet[end] == EXPIRY else 0
