"""`/api/mqtt/delayed`: the delayed messages of all workers, and one of them removed."""

import re
from typing import Final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from robustmq.admin import api
from robustmq.admin.lists import listed
from robustmq.admin.node import Node

_ID: Final = re.compile(r"([0-9]{1,4})-([0-9]{1,19})-([0-9]{1,19})", re.ASCII)


class Deletion(Struct):
    """What `delete` is sent: the `id` of a message as `list` shows it."""

    id: str


async def delayed(request: Request) -> JSONResponse:
    """`list`: what waits, worker by worker, on each in the order in which it is due."""
    return await listed(request, "mqtt.delayed")


async def delete(request: Request) -> JSONResponse:
    """`delete`: remove a message before it is due."""
    wanted = await api.body(request, Deletion)
    node: Node = request.app.state.node
    found = _ID.fullmatch(wanted.id)
    core = int(found[1]) if found is not None else node.workers
    if found is None or core >= node.workers:
        raise api.Wrong(400, "id must be that of a message in mqtt/delayed/list")
    arguments = {"due_ms": int(found[2]), "number": int(found[3])}
    try:
        replies = await node.ask("mqtt.delayed.delete", arguments, (core,))
    except ValueError as error:
        raise api.Wrong(503, str(error)) from error
    if core not in replies.values:
        raise api.Wrong(503, f"worker {core}, which keeps the message, does not answer: try again")
    if not replies.values[core]:
        raise api.Wrong(404, f"no message waits with the id {wanted.id}: it may have been due")
    return api.answer("success")


ROUTES: Final[list[BaseRoute]] = [
    Route("/mqtt/delayed/list", delayed),
    Route("/mqtt/delayed/delete", delete, methods=["POST"]),
]
