"""`/api/mqtt/slow-subscribe`: the slowest subscribers of all workers."""

from typing import Any, Final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from robustmq.admin import api
from robustmq.admin.node import Node


class Clearing(Struct):
    """What `clear` is sent: an empty object."""


async def slow_subscribers(request: Request) -> JSONResponse:
    """`list`: who was slow, the slowest first, `limit` of them from `page`."""
    node: Node = request.app.state.node
    start, limit = api.window(request)
    replies = await node.ask("mqtt.slow_subscribers", {})
    found: list[dict[str, Any]] = [each for value in replies.values.values() for each in value]
    found.sort(key=lambda each: -each["time_span"])
    data = {"data": found[start : start + limit], "total_count": len(found)}
    return api.answer(data, replies.missing)


async def clear(request: Request) -> JSONResponse:
    """`clear`: forget them; the answer is how many they were."""
    await api.body(request, Clearing)
    node: Node = request.app.state.node
    replies = await node.ask("mqtt.slow_subscribers.clear", {})
    return api.answer(sum(replies.values.values()), replies.missing)


ROUTES: Final[list[BaseRoute]] = [
    Route("/mqtt/slow-subscribe/list", slow_subscribers),
    Route("/mqtt/slow-subscribe/clear", clear, methods=["POST"]),
]
