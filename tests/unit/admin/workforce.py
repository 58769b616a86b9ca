"""Workers that answer from lists in memory, and records without a disk; an `admin.node.Node`."""

from collections.abc import Iterable, Mapping
from typing import Any

from robustmq.admin.node import Key, Keys, Replies
from robustmq.broker.catalog_api import Topic
from robustmq.errors import Refusal, Refused
from tests.catalogs import Group, Made


class Desk:
    """Topics of a group that folds at once."""

    def __init__(self) -> None:
        self.catalog = Made(Group()).catalog

    async def create(
        self, tenant: str, name: str, partitions: int, settings: Mapping[str, str]
    ) -> Topic | Refused:
        answers: list[Topic | Refused] = []
        self.catalog.create(tenant, name, partitions, settings, answers.append)
        return answers[0]

    async def delete(self, topic: Topic) -> Refused | None:
        answers: list[Refused | None] = []
        self.catalog.delete(topic, answers.append)
        return answers[0]


class Workforce:
    """`lists` has the entries of each worker by the question's kind; `silent` do not answer."""

    def __init__(self, workers: int = 2) -> None:
        self.workers = workers
        self.topics = Desk()
        self.lists: dict[str, list[list[dict[str, Any]]]] = {}
        self.silent: set[int] = set()
        self.kept: dict[str, dict[str, dict[str, Any]]] = {}
        self.store: dict[str, bytes] = {}
        self.refusal: Refused | None = None
        self.budget = 3
        self.cluster: dict[str, object] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def ask(
        self, kind: str, arguments: Mapping[str, Any], cores: Iterable[int] | None = None
    ) -> Replies:
        if kind not in self.lists:
            raise ValueError(f"no worker answers {kind}")
        wanted = set(range(self.workers) if cores is None else cores)
        values = {core: self._page(kind, core, arguments) for core in wanted - self.silent}
        return Replies(values, sorted(wanted & self.silent))

    async def ask_cluster(self, kind: str, arguments: dict[str, Any]) -> object:
        """Answer what `cluster` has for the question; an exception is raised."""
        self.asked.append((kind, arguments))
        found = self.cluster[kind]
        if isinstance(found, Exception):
            raise found
        return found

    def _page(self, kind: str, core: int, arguments: Mapping[str, Any]) -> dict[str, Any]:
        start, skip, limit = (arguments.get(key, 0) for key in ("start", "skip", "limit"))
        entries = self.lists[kind][core]
        looked = entries[start : start + min(self.budget, skip + limit)]
        behind = start + len(looked)
        return {
            "items": looked[skip:],
            "skipped": min(skip, len(looked)),
            "next": behind if behind < len(entries) else None,
            "total": len(entries),
        }

    def records(self, kind: str) -> Mapping[str, dict[str, Any]]:
        return self.kept.get(kind, {})

    async def settled(self) -> list[int]:
        return sorted(self.silent)

    async def change(
        self, changes: Iterable[tuple[str, str, dict[str, Any] | None]], *, create: bool = False
    ) -> list[int] | Refused:
        if self.refusal is not None:
            return self.refusal
        for kind, name, value in changes:
            named = self.kept.setdefault(kind, {})
            if value is None:
                named.pop(name, None)
            elif create and name in named:
                return Refused(Refusal.NOT_AUTHORIZED, f"the {kind} {name} exists already")
            else:
                named[name] = value
        return sorted(self.silent)

    async def set_key(self, key: str, value: bytes | None) -> list[int] | Refused:
        if self.refusal is not None:
            return self.refusal
        if value is None:
            self.store.pop(key, None)
        else:
            self.store[key] = value
        return sorted(self.silent)

    async def keys(self, prefix: str, start: str, limit: int) -> Keys | Refused:
        if self.refusal is not None:
            return self.refusal
        found = sorted(key for key in self.store if key.startswith(prefix) and key >= start)
        after = found[limit] if len(found) > limit else None
        return Keys([Key(key, self.store[key]) for key in found[:limit]], after)
