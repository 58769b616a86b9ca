"""Lists that lie in parts on all workers: pages of them, whatever their length."""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse

from robustmq.admin import api
from robustmq.admin.node import Node, Replies


class Portion(msgspec.Struct):
    """What a worker has answered: entries, how many it passed over, and where it stopped."""

    items: list[Any]
    skipped: int
    next: int | None
    total: int


class Page:
    """One page, collected from worker after worker."""

    def __init__(self, node: Node, kind: str, arguments: Mapping[str, Any]) -> None:
        self.items: list[Any] = []
        self.missing: set[int] = set()
        self.cursor: str | None = None
        self._node = node
        self._kind = kind
        self._arguments = arguments

    async def collect(self, core: int, position: int, skip: int, limit: int) -> None:
        """Take `limit` entries from a position of a worker's list on, `skip` of them not."""
        while core < self._node.workers:
            value = await self._ask(core, position, skip, limit - len(self.items))
            if value is None:
                core, position = core + 1, 0
                continue
            self.items += value.items
            skip -= value.skipped
            core, position = (core + 1, 0) if value.next is None else (core, value.next)
            if len(self.items) >= limit:
                self.cursor = f"{core}:{position}" if core < self._node.workers else None
                return

    async def total(self) -> int:
        """Return how many entries there are on all workers, without regard to the arguments."""
        replies: Replies = await self._node.ask(self._kind, self._arguments)
        self.missing.update(replies.missing)
        return sum(msgspec.convert(each, Portion).total for each in replies.values.values())

    async def _ask(self, core: int, start: int, skip: int, limit: int) -> Portion | None:
        arguments = {**self._arguments, "start": start, "skip": skip, "limit": limit}
        replies = await self._node.ask(self._kind, arguments, (core,))
        self.missing.update(replies.missing)
        value = replies.values.get(core)
        return None if value is None else msgspec.convert(value, Portion)


async def listed(request: Request, kind: str, *filters: str) -> JSONResponse:
    """Answer with a page of the list that workers know as the question `kind`.

    Parameters: `limit`; `page` from 1, or `cursor` as the page before gave it; and `filters`,
    those parameters that the workers look at themselves.
    """
    node: Node = request.app.state.node
    start, limit = api.window(request)
    core, position = _cursor(request)
    given = request.query_params
    arguments = {name: given[name] for name in filters if name in given}
    found = Page(node, kind, arguments)
    try:
        total = await found.total()
        await found.collect(core, position, start, limit)
    except ValueError as error:
        raise api.Wrong(400, str(error)) from error
    data = {"data": found.items, "total_count": total, "cursor": found.cursor}
    return api.answer(data, sorted(found.missing))


def _cursor(request: Request) -> tuple[int, int]:
    text = request.query_params.get("cursor", "0:0")
    core, _, position = text.partition(":")
    parts = (core, position)
    if not all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts):
        raise api.Wrong(400, "cursor must be what the page before has returned")
    return int(core), int(position)
