"""Workers that answer from lists in memory, and records without a disk; an `admin.node.Node`."""

from collections.abc import Iterable, Mapping
from typing import Any

from robustmq.admin.node import Replies
from robustmq.errors import Refused


class Workforce:
    """`lists` has the entries of each worker by the question's kind; `silent` do not answer."""

    def __init__(self, workers: int = 2) -> None:
        self.workers = workers
        self.lists: dict[str, list[list[dict[str, Any]]]] = {}
        self.silent: set[int] = set()
        self.kept: dict[str, dict[str, dict[str, Any]]] = {}
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

    async def change(
        self, changes: Iterable[tuple[str, str, dict[str, Any] | None]]
    ) -> list[int] | Refused:
        if self.refusal is not None:
            return self.refusal
        for kind, name, value in changes:
            if value is None:
                self.kept.get(kind, {}).pop(name, None)
            else:
                self.kept.setdefault(kind, {})[name] = value
        return sorted(self.silent)
