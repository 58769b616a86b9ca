"""Requests that name several groups: each part goes to the core that coordinates it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from robustmq.kafka.call import Call
from robustmq.kafka.coordinator_keys import group_key
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.schema import Message

T = TypeVar("T")


class Spread(Generic[T]):
    """How the results of a request for groups come together; `T` is the result of one.

    `here(id, reply)` handles one that this core coordinates; `request(ids)` makes the request of
    `api` in `version` for some of them, `results(response)` takes its results in that order;
    `refused(id, error)` is the result of one that is coordinated by another node, or by nobody.
    """

    def __init__(  # noqa: PLR0917
        self,
        kafka: Kafka,
        api: int,
        version: int,
        here: Callable[[str, Callable[[T], None]], None],
        request: Callable[[Sequence[str]], Any],
        results: Callable[[Any], Sequence[T]],
        refused: Callable[[str, ErrorCode], T],
    ) -> None:
        self._kafka = kafka
        self._api = api
        self._version = version
        self._here = here
        self._request = request
        self._results = results
        self._refused = refused

    def gather(self, call: Call[Any], ids: Sequence[str], then: Callable[[list[T]], None]) -> None:
        """Collect the results, in the order of the groups' ids."""
        found: dict[str, T] = {}
        asked = list(dict.fromkeys(ids))

        def note(group_id: str, result: T) -> None:
            found[group_id] = result
            if len(found) == len(asked):
                then([found[each] for each in ids])

        if not asked:
            then([])
        for group_id, error in self._elsewhere(call, asked):
            note(group_id, self._refused(group_id, error))
        for (node, core), some in self._places(call, asked).items():
            if core == self._kafka.core:
                for group_id in some:
                    self._here(group_id, partial(note, group_id))
            else:
                self._ask((node, core), call, some, note)

    def _ask(
        self,
        place: tuple[int, int],
        call: Call[Any],
        ids: Sequence[str],
        note: Callable[[str, T], None],
    ) -> None:
        def answered(response: Message | None) -> None:
            results = () if response is None else self._results(response)
            for at, group_id in enumerate(ids):
                if at < len(results):
                    note(group_id, results[at])
                else:
                    note(group_id, self._refused(group_id, ErrorCode.COORDINATOR_NOT_AVAILABLE))

        self._kafka.coordination.ask(
            place, self._api, self._version, call.principal, self._request(ids), answered
        )

    def _place(self, call: Call[Any], group_id: str) -> tuple[int, int] | None:
        if call.is_forwarded:
            return self._kafka.cluster.node, self._kafka.core
        return self._kafka.coordinator_of(group_key(call.principal.tenant, group_id))

    def _places(self, call: Call[Any], ids: Sequence[str]) -> dict[tuple[int, int], list[str]]:
        """The groups that cores of this node coordinate."""
        found: dict[tuple[int, int], list[str]] = {}
        for group_id in ids:
            place = self._place(call, group_id)
            if place is not None and place[0] == self._kafka.cluster.node:
                found.setdefault(place, []).append(group_id)
        return found

    def _elsewhere(self, call: Call[Any], ids: Sequence[str]) -> list[tuple[str, ErrorCode]]:
        found = []
        for group_id in ids:
            place = self._place(call, group_id)
            if place is None:
                found.append((group_id, ErrorCode.COORDINATOR_NOT_AVAILABLE))
            elif place[0] != self._kafka.cluster.node:
                found.append((group_id, ErrorCode.NOT_COORDINATOR))
        return found
