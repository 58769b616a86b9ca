"""Clients that connect again and again: counted on their home core, and banned for a while."""

from robustmq.config_limits import Ban, MqttFlappingDetect

_MINUTE_MS = 60_000
_PREFIX = "flapping:"


class Flapping:
    """Counts the connections of each client identifier within a window.

    It remembers `max_clients` of them at most, and each for one window.
    """

    def __init__(self, settings: MqttFlappingDetect) -> None:
        self._settings = settings
        self._window_ms = settings.window_time * _MINUTE_MS
        # Since when, and how many; the oldest window first.
        self._counted: dict[str, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._counted)

    def connected(self, client_id: str, now_ms: int) -> Ban | None:
        """Count a connection; return the ban that it has earned, None as a rule."""
        if not self._settings.enable:
            return None
        self._forget(now_ms)
        begin_ms, count = self._counted.get(client_id, (now_ms, 0))
        count += 1
        if count < self._settings.max_client_connections:
            self._counted[client_id] = (begin_ms, count)
            return None
        self._counted.pop(client_id, None)
        minutes = self._settings.ban_time
        return Ban(
            name=_PREFIX + client_id,
            blacklist_type="ClientId",
            resource_name=client_id,
            end_time=-(-now_ms // 1_000) + minutes * 60,
            desc=f"flapping: {count} connections within {self._settings.window_time} min",
        )

    def _forget(self, now_ms: int) -> None:
        """Drop windows that are over, and the oldest when there are too many."""
        while self._counted:
            client_id = next(iter(self._counted))
            is_over = self._counted[client_id][0] + self._window_ms <= now_ms
            if not is_over and len(self._counted) < self._settings.max_clients:
                return
            del self._counted[client_id]
