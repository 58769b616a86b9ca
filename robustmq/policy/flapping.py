"""Clients that connect again and again: counted on their home core, and banned for a while."""

import hashlib

from robustmq.message.tenancy import DEFAULT_TENANT
from robustmq.policy.principal import Principal
from robustmq.settings.limits import Ban, MqttFlappingDetect

_MINUTE_MS = 60_000
_NAME_MAX = 256


class Flapping:
    """Counts the connections of each client of a tenant within a window.

    It remembers `max_clients` of them at most, and each for one window.
    """

    def __init__(self, settings: MqttFlappingDetect) -> None:
        self._settings = settings
        self._window_ms = settings.window_time * _MINUTE_MS
        # Since when, and how many; the oldest window first.
        self._counted: dict[str, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._counted)

    def connected(self, principal: Principal, now_ms: int) -> Ban | None:
        """Count a connection; return the ban that it has earned, None as a rule."""
        if not self._settings.enable:
            return None
        self._forget(now_ms)
        identity = principal.identity
        begin_ms, count = self._counted.get(identity, (now_ms, 0))
        count += 1
        if count < self._settings.max_client_connections:
            self._counted[identity] = (begin_ms, count)
            return None
        self._counted.pop(identity, None)
        minutes = self._settings.ban_time
        return Ban(
            name=_name(principal),
            blacklist_type="ClientId",
            resource_name=principal.client_id,
            tenant=principal.tenant,
            end_time=-(-now_ms // 1_000) + minutes * 60,
            desc=f"flapping: {count} connections within {self._settings.window_time} min",
        )

    def _forget(self, now_ms: int) -> None:
        """Drop windows that are over, and the oldest when there are too many."""
        while self._counted:
            identity = next(iter(self._counted))
            is_over = self._counted[identity][0] + self._window_ms <= now_ms
            if not is_over and len(self._counted) < self._settings.max_clients:
                return
            del self._counted[identity]


def _name(principal: Principal) -> str:
    """Name a ban; a client identifier that is too long for it is told by its digest."""
    tenant = "" if principal.tenant == DEFAULT_TENANT else f"@{principal.tenant}"
    name = f"flapping{tenant}:{principal.client_id}"
    if len(name) <= _NAME_MAX:
        return name
    return f"flapping:sha256:{hashlib.sha256(name.encode()).hexdigest()}"
