"""How many clients may be connected: in all, on each listener, of each address, and a second.

Nobody is asked: each core writes what it has in a row of its own and reads the rows of all. So a
limit may be exceeded by what several cores admit in the same instant, and a rate by one second's
worth of each core that had not looked for a while.
"""

from collections.abc import Callable
from typing import Final, Protocol

from robustmq.errors import Refusal, Refused
from robustmq.policy.principal import Peer, Principal
from robustmq.policy.token_bucket import TokenBucket
from robustmq.settings.limits import MqttLimitCluster
from robustmq.settings.listener import MqttListener, MqttListeners

ALL: Final = "all"
LISTENERS: Final = tuple(MqttListeners.__struct_fields__)


class Ledger(Protocol):
    """Numbers by name: each core adds to its own, and reads the sum of all."""

    def add(self, name: str, amount: int) -> None:
        """Add to this core's number."""

    def total(self, name: str) -> int:
        """Return the sum over all cores."""

    def add_of(self, address: str, amount: int) -> None:
        """Add to this core's number of an address."""

    def total_of(self, address: str) -> int:
        """Return the sum over all cores for an address; at times a little too much."""


class SharedRate:
    """A rate of the whole node: every core sees what all have counted under a name."""

    def __init__(self, ledger: Ledger, name: str, rate: int) -> None:
        self.rate = rate
        self._ledger = ledger
        self._name = name
        self._bucket = TokenBucket(rate)
        self._seen = ledger.total(name)

    def level(self, now_ms: int) -> float:
        """Return how much may pass now; below 0 when too much has."""
        seen = self._ledger.total(self._name)
        # A core that was replaced begins with nothing again.
        passed, self._seen = max(seen - self._seen, 0), seen
        return self._bucket.passed(passed, now_ms)

    def wait_ms(self, level: float) -> int:
        """Return how long it takes from the last look until there is so much."""
        return self._bucket.wait_ms(level)

    def count(self, amount: int, now_ms: int) -> None:
        """Something has passed here; it shows at the next look."""
        del now_ms
        self._ledger.add(self._name, amount)


class ConnectionQuota:
    """The limits of connections; what has no limit is not counted."""

    def __init__(
        self, limits: MqttLimitCluster, listeners: MqttListeners, ledger: Callable[[], Ledger]
    ) -> None:
        self._limits = limits
        self._listeners: dict[str, MqttListener] = {
            name: listeners.named(name) for name in LISTENERS
        }
        rates = {name: each.max_connection_rate for name, each in self._listeners.items()}
        rates[ALL] = limits.max_connection_rate
        bounds = [limits.max_connections_per_node, limits.max_connections_per_address]
        bounds += [each.max_connections for each in self._listeners.values()]
        self._is_bounded = any(bounds)
        self._ledger = ledger() if self._is_bounded or any(rates.values()) else None
        self._rates: dict[str, SharedRate] = {}
        if self._ledger is not None:
            self._rates = {
                name: SharedRate(self._ledger, f"connected.{name}", rate)
                for name, rate in rates.items()
                if rate
            }

    def admit(self, principal: Principal, now_ms: int, replaces: bool) -> Refused | None:
        """Say why a client may not connect, and count it where it may."""
        if self._ledger is None:
            return None
        refused = None if replaces or not self._is_bounded else self._full(principal)
        if refused is not None or not self._rates:
            return refused
        rates = [
            (name, rate)
            for name in (ALL, principal.listener)
            if (rate := self._rates.get(name)) is not None
        ]
        for name, rate in rates:
            if rate.level(now_ms) < 1:
                return Refused(
                    Refusal.RATE_EXCEEDED,
                    f"too many clients connect at once ({_key(name, 'max_connection_rate')}): "
                    "try again in a while",
                )
        for _, rate in rates:
            rate.count(1, now_ms)
        return None

    def opened(self, peer: Peer) -> None:
        """A client is connected."""
        if self._is_bounded:
            self._count(peer, 1)

    def closed(self, peer: Peer) -> None:
        """A client is not connected any more."""
        if self._is_bounded:
            self._count(peer, -1)

    def _count(self, peer: Peer, amount: int) -> None:
        assert self._ledger is not None
        self._ledger.add(f"open.{ALL}", amount)
        if peer.listener in self._listeners:
            self._ledger.add(f"open.{peer.listener}", amount)
        if peer.address and self._limits.max_connections_per_address:
            self._ledger.add_of(peer.address, amount)

    def _full(self, principal: Principal) -> Refused | None:
        ledger = self._ledger
        assert ledger is not None
        most = self._limits.max_connections_per_node
        if most and ledger.total(f"open.{ALL}") >= most:
            return _refused(most, _key(ALL, "max_connections_per_node"))
        listener = self._listeners.get(principal.listener)
        most = listener.max_connections if listener is not None else 0
        if most and ledger.total(f"open.{principal.listener}") >= most:
            return _refused(most, _key(principal.listener, "max_connections"))
        most = self._limits.max_connections_per_address
        if most and principal.address and ledger.total_of(principal.address) >= most:
            return _refused(most, _key(ALL, "max_connections_per_address"))
        return None


def _key(name: str, key: str) -> str:
    return f"mqtt_runtime.limit.cluster.{key}" if name == ALL else f"listener {name}, {key}"


def _refused(most: int, key: str) -> Refused:
    return Refused(
        Refusal.QUOTA_EXCEEDED, f"{most} clients are connected, which is the limit ({key})"
    )
