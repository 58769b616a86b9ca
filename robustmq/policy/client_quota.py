"""Quotas of clients: bytes and time that a user, or who calls itself so, may use in a second.

As in Kafka a quota is for a user, for a client id, or for both, each by name or for all that have
no other (None, the default). Of each kind the most specific one holds, in the order of `_ORDER`.
Rates are those of the node: its cores count together.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from robustmq.message.tenancy import DEFAULT_TENANT
from robustmq.meta.records import ClientQuota, decoded_quota
from robustmq.policy.connection_quota import Ledger, SharedRate
from robustmq.policy.principal import Principal

USER: Final = "user"
CLIENT: Final = "client-id"

PRODUCER_BYTES: Final = "producer_byte_rate"
CONSUMER_BYTES: Final = "consumer_byte_rate"
REQUEST_PERCENTAGE: Final = "request_percentage"
KEYS: Final = (PRODUCER_BYTES, CONSUMER_BYTES, REQUEST_PERCENTAGE)
"""What may be limited; the percentage is of one core's time."""

_NS_OF_PERCENT: Final = 10_000_000
_REMEMBERED: Final = 10_000

_Part = str | None
_Entity = frozenset[tuple[str, _Part]]

# By what a quota names: the user (True: by name, False: the default, None: none), the client id.
_ORDER: Final[tuple[tuple[bool | None, bool | None], ...]] = (
    (True, True),
    (True, False),
    (True, None),
    (False, True),
    (False, False),
    (False, None),
    (None, True),
    (None, False),
)


class Allowance(NamedTuple):
    """What one user or client may use; see `kafka.front.Allowance`."""

    produced: SharedRate | None
    consumed: SharedRate | None
    busy: SharedRate | None
    most_ms: int

    def take(self, produced: int, consumed: int, busy_ns: int, now_ms: int) -> int:
        """Take bytes and time; return the ms until there is something again."""
        waits = (
            _take(self.produced, produced, now_ms),
            _take(self.consumed, consumed, now_ms),
            _take(self.busy, busy_ns, now_ms),
        )
        return min(max(waits), self.most_ms)


class ClientQuotas:
    """The quotas that records set; a fold of the image. `ledger` counts for the whole node.

    A client waits `most_ms` at once at most.
    """

    def __init__(self, ledger: Callable[[], Ledger], most_ms: int) -> None:
        self._ledger = ledger
        self._most_ms = most_ms
        self.by_entity: dict[_Entity, Mapping[str, float]] = {}
        """By whom they are for: pairs of USER or CLIENT and a name, None: the default."""
        self.version = 0
        """Another number whenever others hold."""
        self._named: dict[str, _Entity] = {}
        self._known: dict[tuple[str, str], Allowance | None] = {}
        # By name: the clients of one user share what is for the user.
        self._rates: dict[str, SharedRate] = {}

    def clear(self) -> None:
        """Forget all: the records follow."""
        self.by_entity.clear()
        self._named.clear()
        self._forget()

    def apply(self, name: str, value: Mapping[str, Any] | None, changed: int = 0) -> None:
        """Learn of a quota by its record, or with None that it is gone; raises ValueError."""
        del changed
        self._forget()
        before = self._named.pop(name, None)
        if before is not None:
            self.by_entity.pop(before, None)
        if value is not None:
            quota = decoded_quota(value)
            entity = frozenset(quota.entity.items())
            self.by_entity[entity] = quota.quotas
            self._named[name] = entity

    def of(self, principal: Principal, client_id: str | None) -> Allowance | None:
        """Return the allowance of a client; None where there is no limit."""
        if not self.by_entity:
            return None
        who = (_user(principal), client_id or "")
        if who not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._forget()
            self._known[who] = self._decide(*who)
        return self._known[who]

    def _forget(self) -> None:
        """Decide anew for everybody, who may then take a second's worth at once."""
        self.version += 1
        self._known.clear()
        self._rates.clear()

    def _decide(self, user: str, client: str) -> Allowance | None:
        produced, consumed, busy = (self._rate(user, client, key) for key in KEYS)
        if produced is consumed is busy is None:
            return None
        return Allowance(produced, consumed, busy, self._most_ms)

    def _rate(self, user: str, client: str, key: str) -> SharedRate | None:
        """The rate that holds: shared by all whom its entity means when names are put in."""
        for of_user, of_client in _ORDER:
            entity = frozenset(_parts(of_user, user, USER) + _parts(of_client, client, CLIENT))
            rate = self.by_entity.get(entity, {}).get(key)
            if rate is None:
                continue
            shared = (user if of_user is not None else "", client if of_client is not None else "")
            name = "\0".join(("quota", key, *shared))
            if name not in self._rates:
                per_second = rate * _NS_OF_PERCENT if key == REQUEST_PERCENTAGE else rate
                sketch = _Sketch(self._ledger())
                self._rates[name] = SharedRate(sketch, name, max(int(per_second), 1))
            return self._rates[name]
        return None


class _Sketch:
    """A Ledger whose names need not be agreed."""

    def __init__(self, ledger: Ledger) -> None:
        self.add = ledger.add_of
        self.total = ledger.total_of
        self.add_of = ledger.add_of
        self.total_of = ledger.total_of


def record_name(quota: ClientQuota) -> str:
    """The name of a quota's record: the same for the same entity."""
    parts = sorted(quota.entity.items())
    return "\x01".join(kind if name is None else f"{kind}={name}" for kind, name in parts)


def _parts(named: bool | None, name: str, kind: str) -> list[tuple[str, _Part]]:
    return [] if named is None else [(kind, name if named else None)]


def _user(principal: Principal) -> str:
    """The user as quotas name it: `tenant@user` but for those of the default tenant."""
    username = principal.username or "ANONYMOUS"
    return username if principal.tenant == DEFAULT_TENANT else f"{principal.tenant}@{username}"


def _take(rate: SharedRate | None, amount: int, now_ms: int) -> int:
    if rate is None or not amount:
        return 0
    rate.count(amount, now_ms)
    level = rate.level(now_ms)
    return rate.wait_ms(0.0) if level < 0 else 0
