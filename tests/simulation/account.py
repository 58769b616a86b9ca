"""What a simulated node has promised, and what has come: messages, sessions, wills.

Clients tell what they send and read; the node tells when a core opened or left a session, and
when it died. A fault is a promise that was broken, in a sentence.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.chaos import ledger
from tests.simulation.sessions import Views
from tests.simulation.wills import Wills


@dataclass
class Message:
    """A PUBLISH and who is to have it.

    `promised` are clients that had the SUBACK of a matching filter when it was sent first; True:
    on disk. `due_ms` is 0 when it is not delayed.
    """

    number: int
    publisher: str
    topic: str
    qos: int
    retain: bool
    payload: bytes
    due_ms: int = 0
    acknowledged: bool = False
    refused: bool = False
    repeated: bool = False
    promised: dict[str, bool] = field(default_factory=dict)
    heard: Counter[str] = field(default_factory=Counter)
    exact: set[str] = field(default_factory=set)
    """Those who had it at QoS 2: a subscription may have come to that after a delivery."""
    forgotten: set[str] = field(default_factory=set)
    """Those who may get it again: since they had it a core may have forgotten that."""
    is_shared: bool = False
    """Whether some member of the shared group must get it."""

    def __str__(self) -> str:
        flags = "r" if self.retain else ""
        return f"{self.number}{flags} ({self.publisher}, {self.topic}, QoS {self.qos})"


SHARED: Final = "$share/g/$g/+"
"""What members of the shared group subscribe to; nobody else is told of these topics."""
SHARED_TOPICS: Final = ("$g/1", "$g/2")


def matches(topic_filter: str, topic: str) -> bool:
    """Return whether a filter of a client's own matches a topic (MQTT5 4.7)."""
    return topic not in SHARED_TOPICS and ledger.matches(topic_filter, topic)


@dataclass
class Subscription:
    """A filter of a client: every QoS it was ever asked with, and whether it is granted now."""

    asked: set[int] = field(default_factory=set)
    granted: bool = False


class Account:
    """The promises of one simulation; `clock()` is its time in ms."""

    def __init__(self, clock: Callable[[], int], trace: Callable[[str], None]) -> None:
        self._clock = clock
        self._trace = trace
        self.faults: list[str] = []
        self.messages: list[Message] = []
        self.views = Views(clock, self.fault)
        self.wills = Wills(clock, self.fault)
        self.forgettings = 0
        """How often a core has died that may have sent what it had not noted: see `may_forget`."""
        self.was_full = False
        """Whether a disk has ever refused to write."""
        self.crashes = 0
        self._subscriptions: dict[str, dict[str, Subscription]] = {}
        self._highest: dict[tuple[str, str, str, int], int] = {}
        self.delivered = 0
        self.is_durable: Callable[[str], bool]
        self.away: set[str] = set()
        """Clients of nodes that are not live, or of which not everybody has heard again."""
        self.is_held: Callable[[str, str], bool] = lambda _publisher, _client: False
        """Whether what a client publishes now waits for the session of another that is away."""
        self.shares: Callable[[], bool] = lambda: False
        """Whether the shared group has a member for good, and all know who leads it."""
        self.was_moved = False
        """Whether another core may have begun to lead the group."""

    def fault(self, what: str) -> None:
        """Note a broken promise."""
        self._trace(f"FAULT {what}")
        self.faults.append(what)

    # ------------------------------------------------------------------ subscriptions

    def _filters(self, client: str) -> dict[str, Subscription]:
        return self._subscriptions.setdefault(client, {})

    def asks(self, client: str, topic_filter: str, qos: int) -> None:
        """A SUBSCRIBE is sent: messages may come from here on."""
        self._filters(client).setdefault(topic_filter, Subscription()).asked.add(qos)

    def subscribed(self, client: str, topic_filter: str) -> None:
        """A SUBACK grants a filter: what is sent from here on is promised."""
        self._filters(client)[topic_filter].granted = True

    def leaves(self, client: str, topic_filter: str) -> None:
        """An UNSUBSCRIBE is sent: nothing is promised by this filter any more."""
        self._filters(client)[topic_filter].granted = False
        for message in self._unheard(client):
            if matches(topic_filter, message.topic):
                del message.promised[client]

    def forgets(self, client: str) -> None:
        """The session has ended, or nobody can know whether it has: nothing is promised to it."""
        for subscription in self._filters(client).values():
            subscription.granted = False
        for message in self._unheard(client):
            del message.promised[client]

    def departs(self, clients: Iterable[str]) -> None:
        """The node of these clients is not live any more: nothing is promised to them."""
        self.away.update(clients)
        for client in clients:
            for message in self._unheard(client):
                del message.promised[client]
        for message in self.messages:
            message.is_shared &= bool(message.heard)

    def lets_go(self, clients: Iterable[str]) -> None:
        """What lives in memory only is not promised any more to these clients."""
        for client in clients:
            for message in self._unheard(client):
                if not message.promised[client]:
                    del message.promised[client]

    def _unheard(self, client: str) -> Iterator[Message]:
        for message in self.messages:
            if client in message.promised and not message.heard[client]:
                yield message

    # ------------------------------------------------------------------ publishers

    def sends(self, message: Message) -> None:
        """A message is sent for the first time; its number is how many there were before."""
        assert message.number == len(self.messages)
        for client, filters in self._subscriptions.items():
            granted = [
                subscription.asked
                for topic_filter, subscription in filters.items()
                if subscription.granted and matches(topic_filter, message.topic)
            ]
            is_durable = self.is_durable(client)
            if client in self.away and not (is_durable and self.is_held(message.publisher, client)):
                continue
            if message.payload and message.qos and any(min(asked) for asked in granted):
                message.promised[client] = is_durable
        message.is_shared = message.topic in SHARED_TOPICS and message.qos > 0 and self.shares()
        self.messages.append(message)

    # ------------------------------------------------------------------ subscribers

    def hears(  # noqa: PLR0917
        self, client: str, topic: str, payload: bytes, qos: int, retained: bool, since: int
    ) -> None:
        """A client was given a message, by the rules of its QoS for the first time.

        `since` were the forgettings when it connected.
        """
        self.delivered += 1
        if not payload:
            return
        if payload[:1] == b"w":
            self.wills.heard(
                int(payload[1:]), topic, client, qos, self.was_full or since < self.forgettings
            )
            return
        message = self.messages[int(payload)]
        if topic != message.topic:
            self.fault(f"{client} was given {message} on {topic}")
        wanted = {
            asked
            for topic_filter, subscription in self._filters(client).items()
            if (matches(topic_filter, topic) or topic_filter == SHARED)
            for asked in subscription.asked
        }
        if qos not in {min(each, message.qos) for each in wanted}:
            self.fault(f"{client} was given {message} at QoS {qos}, not asked for")
        if retained:
            return
        if self._clock() < message.due_ms:
            self.fault(f"{client} was given {message} too early")
        message.heard[client] += 1
        if message.heard[client] > 1 and client not in message.forgotten:
            self._again(client, message, qos)
        if qos == 2:
            message.exact.add(client)
        if since < self.forgettings:
            message.forgotten.add(client)
        if (
            topic not in SHARED_TOPICS
            and message.heard[client] == 1
            and not message.due_ms
            and (not message.qos or client in message.promised)
        ):
            self._order(client, message)

    def _again(self, client: str, message: Message, qos: int) -> None:
        # What one core has refused and another taken is new when its publisher sends it again.
        excused = self.was_full and (message.repeated or message.due_ms)
        excused |= self.was_moved and message.topic in SHARED_TOPICS
        exact = qos == 2 and client in message.exact
        if not excused and (exact or message.qos == 0):
            self.fault(f"{client} has {message} again")

    def _order(self, client: str, message: Message) -> None:
        lane = client, message.publisher, message.topic, message.qos
        highest = self._highest.get(lane, -1)
        if message.number < highest and not (self.was_full and message.repeated):
            self.fault(f"{client} was given {message} after {highest}")
        self._highest[lane] = max(highest, message.number)

    def may_forget(self) -> None:
        """A core dies in a power cut, or on a full disk: what it notes of QoS 2 may be gone.

        A QoS 2 packet leaves when its row is written, not when it is synced, and also when it
        cannot be written: then it may come again. No promise is made where that is so.
        """
        self.forgettings += 1
        for message in self.messages:
            message.forgotten.update(message.heard)
        for will in self.wills.all:
            will.forgotten.update(will.heard)

    # ------------------------------------------------------------------ the end

    def lost(self) -> list[str]:
        """What was acknowledged, promised, and has not come."""
        return [
            f"no member has {message}"
            for message in self.messages
            if message.acknowledged and message.is_shared and not message.heard
        ] + [
            f"{client} lacks {message}"
            for message in self.messages
            if message.acknowledged
            for client in message.promised
            if not message.heard[client]
        ]

    def check_retained(self, found: dict[str, bytes]) -> None:
        """Compare what is retained in the end: the last one, where it is known which that is."""
        history: dict[str, list[Message]] = {}
        for message in self.messages:
            if message.retain:
                history.setdefault(message.topic, []).append(message)
        for topic, messages in history.items():
            certain = [i for i, message in enumerate(messages) if message.acknowledged]
            first = certain[-1] if certain else 0
            candidates = {message.payload for message in messages[first:]}
            if not certain:
                candidates.add(b"")
            if not self.crashes and not self.was_full and messages[-1].acknowledged:
                candidates = {messages[-1].payload}
            if found.get(topic, b"") not in candidates:
                self.fault(f"{topic} retains {found.get(topic)!r}, not one of {candidates}")
