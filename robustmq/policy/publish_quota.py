"""How much may be published: by one client, by all of a listener, and to topics of a filter.

Nothing is dropped: who has published what it may is read on when there is room again. What is
granted is a twentieth of a second's worth at a time, so nobody is asked for each message.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from robustmq._kernel.intake import Intake
from robustmq._kernel.meter import Meter
from robustmq._kernel.trie import Trie
from robustmq._kernel.turn import Turn
from robustmq.policy.connection_quota import LISTENERS, Ledger, SharedRate
from robustmq.policy.principal import Peer
from robustmq.policy.token_bucket import TokenBucket
from robustmq.settings.limits import MqttLimitClient, PublishLimit
from robustmq.settings.listener import MqttListeners

GRANTS: Final = 20
"""Grants in which the worth of a second is given out."""
UNLIMITED: Final = 1 << 62

At = Callable[[int, Callable[[], None]], object]


class Rate(Protocol):
    """Messages or bytes in a second."""

    @property
    def rate(self) -> int:
        """Return the limit."""

    def level(self, now_ms: int) -> float:
        """Return how much may pass now; below 0 when too much has."""

    def wait_ms(self, level: float) -> int:
        """Return how long it takes from the last look until there is so much."""

    def count(self, amount: int, now_ms: int) -> None:
        """Something has passed here."""


class OwnRate:
    """A rate that concerns nobody else."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._bucket = TokenBucket(rate)

    def level(self, now_ms: int) -> float:
        """See `Rate`."""
        return self._bucket.take(0, now_ms)

    def wait_ms(self, level: float) -> int:
        """See `Rate`."""
        return self._bucket.wait_ms(level)

    def count(self, amount: int, now_ms: int) -> None:
        """See `Rate`."""
        self._bucket.take(amount, now_ms)


class Throttle:
    """A meter and its rates; of those that it stops, who has had nothing goes on first.

    `messages` and `size` are its rates, None where there is no limit.
    """

    def __init__(self, turn: Turn, at: At, messages: Rate | None, size: Rate | None) -> None:
        self.meter = Meter(self._refill)
        self._turn = turn
        self._at = at
        self._messages = messages
        self._size = size
        self._hungry: deque[Intake] = deque()
        self._served: deque[Intake] = deque()
        self._is_empty = False
        self._timed = False

    def _refill(self, intake: Intake) -> None:
        meter = self.meter
        now_ms = self._turn.now_ms
        meter.messages, wait_ms = _grant(self._messages, meter.messages, now_ms)
        meter.size, also_ms = _grant(self._size, meter.size, now_ms)
        wait_ms = max(wait_ms, also_ms)
        # Who asks although nothing was left before has taken nothing since.
        queue = self._hungry if self._is_empty else self._served
        self._is_empty = wait_ms > 0
        if wait_ms and not intake.closed:
            intake.throttle()
            queue.append(intake)
            self._wake(wait_ms)

    def _wake(self, wait_ms: int) -> None:
        if not self._timed:
            self._timed = True
            self._at(self._turn.now_ms + wait_ms, self._due)

    def _due(self) -> None:
        """Let on as many as there is room for; each takes one message at least."""
        self._timed = False
        room = GRANTS
        if self._messages is not None:
            room = max(int(self._messages.level(self._turn.now_ms)), 1)
        while (self._hungry or self._served) and room:
            intake = (self._hungry or self._served).popleft()
            if not intake.closed:
                intake.release()
                room -= 1
        if self._hungry or self._served:
            self._wake(1_000 // GRANTS)


def _grant(rate: Rate | None, left: int, now_ms: int) -> tuple[int, int]:
    """Return what may be taken now, and how long to wait where that is nothing."""
    if rate is None:
        return UNLIMITED, 0
    if left > 0:
        return left, 0
    if left < 0:
        rate.count(-left, now_ms)
    share = max(rate.rate // GRANTS, 1)
    level = rate.level(now_ms)
    if level < 1:
        return 0, max(rate.wait_ms(share), 1)
    granted = min(int(level), share)
    rate.count(granted, now_ms)
    return granted, 0


class PublishQuota:
    """The meters of this core; what has no limit has no meter."""

    def __init__(
        self,
        client: MqttLimitClient,
        listeners: MqttListeners,
        topics: Sequence[PublishLimit],
        *,
        turn: Turn,
        at: At,
        ledger: Callable[[], Ledger],
    ) -> None:
        self._client = client
        self._turn = turn
        self._at = at
        self._listeners: dict[str, Meter] = {}
        self._trie: Trie[int] = Trie()
        self._topics: list[Meter | None] = []
        limited = [
            (name, each.max_publish_rate, each.max_publish_bytes)
            for name in LISTENERS
            if (each := listeners.named(name)).max_publish_rate or each.max_publish_bytes
        ]
        shared = ledger() if limited or topics else None
        for name, rate, size in limited:
            self._listeners[name] = self._shared(shared, name, rate, size)
        for number, topic in enumerate(topics):
            self._trie.add(topic.filter.encode(), number)
            limits = (topic.max_publish_rate, topic.max_publish_bytes)
            meter = self._shared(shared, topic.filter, *limits) if any(limits) else None
            self._topics.append(meter)
        own = client.max_publish_rate or client.max_publish_bytes
        self.is_used = bool(own or limited or topics)
        """Whether there is any limit."""

    def meters(self, peer: Peer) -> list[Meter] | None:
        """Return the meters of a new client: its own, and that of its listener."""
        meters: list[Meter] = []
        rate, size = self._client.max_publish_rate, self._client.max_publish_bytes
        if rate or size:
            throttle = Throttle(
                self._turn,
                self._at,
                OwnRate(rate) if rate else None,
                OwnRate(size) if size else None,
            )
            meters.append(throttle.meter)
        if peer.listener in self._listeners:
            meters.append(self._listeners[peer.listener])
        return meters or None

    def of_topic(self, topic: bytes) -> Meter | None:
        """Return the meter of a valid topic name; None where there is no limit."""
        matching = self._trie.match(topic) if self._topics else ()
        return self._topics[min(matching)] if matching else None

    def _shared(self, ledger: Ledger | None, name: str, rate: int, size: int) -> Meter:
        assert ledger is not None
        throttle = Throttle(
            self._turn,
            self._at,
            SharedRate(ledger, f"messages.{name}", rate) if rate else None,
            SharedRate(ledger, f"bytes.{name}", size) if size else None,
        )
        return throttle.meter
