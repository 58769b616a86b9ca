"""Alarms of a node: raised when something is beyond a bound, cleared when it is well below again.

What is measured is handed in; here it is only decided what to call an administrator for.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from robustmq.admin import api

CALM_LOOKS: Final = 3
"""Looks in a row that must find all well before an alarm is cleared."""

_STATES: Final = ("active", "ended", "all")


class Reading(NamedTuple):
    """Something that was measured: raises the alarm `name` from `high` on, clears it below `low`.

    `message` says to a human what was found.
    """

    name: str
    value: float
    high: float
    low: float
    message: str


class Alarm(msgspec.Struct):
    """An alarm; times in seconds since 1970, `deactivate_at` is None while it is active."""

    name: str
    message: str
    activate_at: int
    activated: bool = True
    deactivate_at: int | None = None


class Alarms:
    """The alarms that are active, and the last ones that were; in memory only."""

    def __init__(self, most_ended: int = 0) -> None:
        self._active: dict[str, Alarm] = {}
        self._calm: dict[str, int] = {}
        self._ended: deque[Alarm] = deque(maxlen=most_ended)
        self._names: dict[str, None] = {}

    def look(self, now_s: float, readings: Iterable[Reading]) -> list[Alarm]:
        """Judge what was measured; return the alarms that were raised and cleared by it."""
        changed = (self._judge(int(now_s), reading) for reading in readings)
        return [alarm for alarm in changed if alarm is not None]

    def _judge(self, now_s: int, reading: Reading) -> Alarm | None:
        name = reading.name
        self._names[name] = None
        alarm = self._active.get(name)
        if alarm is None:
            if reading.value < reading.high:
                return None
            self._calm[name] = 0
            alarm = self._active[name] = Alarm(name, reading.message, now_s)
            return alarm
        if reading.value >= min(reading.low, reading.high):
            self._calm[name] = 0
            alarm.message = reading.message
            return None
        self._calm[name] += 1
        if self._calm[name] < CALM_LOOKS:
            return None
        del self._active[name]
        alarm.activated, alarm.deactivate_at = False, now_s
        self._ended.append(alarm)
        return alarm

    def listed(self, state: str = "all") -> list[Alarm]:
        """Return the alarms that are `active` or `ended` (or `all`), the newest first."""
        alarms = [*self._active.values()] if state != "ended" else []
        alarms += self._ended if state != "active" else []
        return sorted(alarms, key=lambda alarm: -alarm.activate_at)

    def states(self) -> Iterator[tuple[str, bool]]:
        """Yield the names of all alarms that can be, and whether they are active."""
        for name in self._names:
            yield name, name in self._active


class AlarmCollector(Collector):
    """Shows Prometheus which alarms are active."""

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms

    def describe(self) -> Iterable[Metric]:
        """Promise nothing in advance, so that registering does not collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield one gauge with a series for each alarm."""
        family = GaugeMetricFamily(
            "robustmq_alarm_active", "1 while the alarm is active.", labels=("name",)
        )
        for name, is_active in self._alarms.states():
            family.add_metric((name,), int(is_active))
        yield family


async def _list(request: Request) -> JSONResponse:
    """`system-alarm/list`: alarms, the newest first; `state` says which."""
    alarms: Alarms = request.app.state.alarms
    state = request.query_params.get("state", "all")
    if state not in _STATES:
        raise api.Wrong(400, f"state must be one of {', '.join(_STATES)}, not {state[:100]!r}")
    first, limit = api.window(request)
    found = alarms.listed(state)
    page = msgspec.to_builtins(found[first : first + limit])
    return api.answer({"data": page, "total_count": len(found)})


ROUTES: Final[list[BaseRoute]] = [Route("/mqtt/system-alarm/list", _list)]
