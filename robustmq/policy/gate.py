"""Who may come in: bans, clients that come again and again, and how many may be there."""

from collections.abc import Callable

from robustmq import metrics
from robustmq.errors import Refusal, Refused
from robustmq.policy.bans import Bans, record_of
from robustmq.policy.connection_quota import ConnectionQuota
from robustmq.policy.flapping import Flapping
from robustmq.policy.principal import Peer, Principal
from robustmq.settings.limits import Ban


class Gate:
    """Decides about each CONNECT on the client's home core; `cells` is the counter row.

    `earned(ban)` hears of bans that this core makes; they hold here at once.
    """

    def __init__(
        self,
        bans: Bans,
        flapping: Flapping,
        quota: ConnectionQuota,
        cells: memoryview,
        earned: Callable[[Ban], None],
    ) -> None:
        self._bans = bans
        self._flapping = flapping
        self._quota = quota
        self._cells = cells
        self._earned = earned

    def admit(
        self, principal: Principal, now_ms: int, replaces: bool, *, has_many: bool = False
    ) -> Refused | None:
        """Say why a client may not connect; `replaces`: it takes over a connection that is here.

        `has_many`: clients of its protocol have several connections, and none of their own name:
        that they come again and again is nothing.
        """
        refused = self.banned(principal, now_ms)
        if refused is None and not has_many:
            ban = self._flapping.connected(principal, now_ms)
            if ban is not None:
                self._cells[metrics.FLAPPING_BANNED] += 1
                self._bans.apply(ban.name, record_of(ban))
                self._earned(ban)
                refused = self.banned(principal, now_ms)
        if refused is not None:
            self._cells[metrics.BLACKLIST_BLOCKED] += 1
            return refused
        refused = self._quota.admit(principal, now_ms, replaces)
        if refused is not None:
            by_rate = refused.code is Refusal.RATE_EXCEEDED
            cell = metrics.CONNECTIONS_OVER_RATE if by_rate else metrics.CONNECTIONS_OVER_LIMIT
            self._cells[cell] += 1
        return refused

    def banned(self, principal: Principal, now_ms: int) -> Refused | None:
        """Say why a client may not be connected, for one that is."""
        return self._bans.refusal(principal, now_ms)

    def opened(self, peer: Peer) -> None:
        """A client has come in."""
        self._quota.opened(peer)

    def closed(self, peer: Peer) -> None:
        """A client that had come in is gone."""
        self._quota.closed(peer)
