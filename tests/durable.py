"""Durable sessions on a fabric of cores: clients that keep their half of every exchange."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from robustmq._kernel.outbox import Outbox
from robustmq._kernel.window import Window
from robustmq.broker.api import Kept, Options
from robustmq.broker.shares import KEY_SHIFT
from tests.fabric import Fabric, Message, Node, decode, varint

DURABLE_KEYS = 1 << 46


_PUBREL = 6


def packets(data: bytes) -> Iterator[bytes]:
    """Cut a stream into its packets."""
    at = 0
    while at < len(data):
        length, body = varint(data, at + 1)
        yield data[at : body + length]
        at = body + length


class _Subscription(NamedTuple):
    options: Options
    start: int


class DurableClient:
    """A client with a session that survives its core; as in MQTT, it forgets no packet id.

    `messages` are what its application got: of a QoS 2 exchange once, at the PUBLISH.
    """

    def __init__(self, fabric: Fabric, home: int, limit: int = 60_000, version: int = 5) -> None:
        self.fabric = fabric
        self.home = home
        self.limit = limit
        self.version = version
        self.messages: list[Message] = []
        self.reads_on = True
        """Whether it reads what its acknowledgements let go, before that is committed."""
        self.subacks = 0
        self._received: set[int] = set()
        self.subscriptions: dict[bytes, _Subscription] = {}
        self.groups: dict[tuple[bytes, bytes], Options] = {}
        self.unread: set[bytes] = set()
        """Payloads of QoS 2 that were sent to the client, and went with a connection."""
        self.lost: set[bytes] = set()
        """The same of QoS 0, which are never sent again."""
        self.outbox: Outbox | None = None
        number = self.node.core.state.next_number(b"session")
        self.key = home << KEY_SHIFT | DURABLE_KEYS | number
        self.window = self._new_window()
        self.node.core.keep(self.window, self.node.core.position)

    @property
    def node(self) -> Node:
        """The core that is home to the session, in its present life."""
        return self.fabric.nodes[self.home]

    def _new_window(self) -> Window:
        window = Window(self.node.turn, 100_000, 1 << 30, 1 << 30)
        window.key = self.key
        window.version = self.version
        return window

    def connect(self) -> None:
        """The client has come (again)."""
        self.outbox = Outbox(self.node.turn)
        self.window.attach(self.outbox, self.version, self.limit, 0, 0)
        self.node.core.open(self.window, True)

    def disconnect(self) -> None:
        """The client has gone; what was sent and not read is lost with the connection."""
        if self.outbox is not None:
            self._note_unread()
            self.outbox.close()
        self.outbox = None
        self.window.detach()
        self.node.core.open(self.window, False)

    def subscribe(
        self,
        topic_filter: str,
        options: Options = Options(2),  # noqa: B008
        replied: Callable[[], None] = lambda: None,
    ) -> None:
        """Subscribe; `subacks` counts the answers."""
        name = topic_filter.encode()
        known = self.subscriptions.get(name)
        start = known.start if known else self.node.core.position
        self.subscriptions[name] = _Subscription(options, start)

        def settled(kept: list[Kept]) -> None:
            assert not kept
            self.subacks += 1
            replied()

        self.node.core.subscribe(self.window, name, options, False, settled)

    def join(self, group: str, topic_filter: str, options: Options = Options(2)) -> None:  # noqa: B008
        """Become a member of a shared subscription; `subacks` counts the answers."""
        name = group.encode(), topic_filter.encode()
        self.groups[name] = options

        def settled() -> None:
            self.subacks += 1

        self.node.core.join(self.window, *name, options, settled)

    def leave(self, group: str, topic_filter: str) -> None:
        """Be a member no more."""
        name = group.encode(), topic_filter.encode()
        if self.groups.pop(name, None) is not None:
            self.node.core.leave(self.window, *name)

    def end(self) -> None:
        """The session ends, and the client has a new one."""
        if self.outbox is not None:
            self.disconnect()
        for group, topic_filter in list(self.groups):
            self.leave(group.decode(), topic_filter.decode())
        for topic_filter in self.subscriptions:
            self.node.core.unsubscribe(self.window, topic_filter)
        self.subscriptions.clear()
        self.node.core.drop(self.window)
        self.window.clear()
        self._received.clear()
        self.key += 1 << 20
        self.window = self._new_window()
        self.node.core.keep(self.window, self.node.core.position)

    def _note_unread(self) -> None:
        if self.outbox is not None and self.outbox.size:
            self._miss(self.outbox.take())

    def _miss(self, data: bytes) -> None:
        for message in decode(data):
            if message.qos == 2:
                self.unread.add(message.payload)
            elif message.qos == 0:
                self.lost.add(message.payload)

    def restore(self) -> None:
        """The core has a new life: the session is there again, its connection is not."""
        self._note_unread()
        self.outbox = None
        self.window = self._new_window()
        self.node.core.keep(self.window, None)
        for name, (options, start) in self.subscriptions.items():
            self.node.core.restore(self.window, name, options, start)
        for group, options in self.groups.items():
            self.node.core.restore_member(self.window, *group, options)

    def read(self, most: int = 1 << 30) -> None:
        """Read what has been sent, and acknowledge at most so many messages of it."""
        while self.outbox is not None and self.outbox.size:
            for packet in packets(self.outbox.take()):
                if most <= 0:
                    self._miss(packet)
                    continue
                most -= 1
                if packet[0] >> 4 == _PUBREL:
                    self._release(int.from_bytes(packet[2:4], "big"), self.window)
                else:
                    (message,) = decode(packet)
                    self._take(message)
            if not self.reads_on:
                return

    def _take(self, message: Message) -> None:
        core = self.node.core
        if message.qos < 2 or message.packet_id not in self._received:
            self.messages.append(message)
        if message.qos == 1:
            self.window.puback(message.packet_id)
        elif message.qos == 2:
            self._received.add(message.packet_id)
            self.window.pubrec(message.packet_id, False)
            core.released(self.window, message.packet_id)
            # The PUBREL comes when what was released is written.
            core.state.then(lambda: self._release(message.packet_id, self.window))

    def _release(self, packet_id: int, window: Window) -> None:
        if window is not self.window or self.outbox is None:
            return
        self._received.discard(packet_id)
        window.pubcomp(packet_id)
        self.node.core.completed(window, packet_id)
