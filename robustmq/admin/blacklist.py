"""`/api/cluster/blacklist`: who may not connect, and how that is changed."""

import time
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from robustmq.admin import api
from robustmq.admin.node import Node
from robustmq.policy.bans import KIND, ban_of, is_over, record_of

_NAME_MAX: Final = 256


class Creation(Struct):
    """What `create` is sent; as upstream's, with seconds since 1970 for `end_time`."""

    name: str
    blacklist_type: str
    resource_name: str
    tenant: str = "default"
    end_time: int = 0
    desc: str = ""


class Deletion(Struct):
    """What `delete` is sent."""

    name: str


async def blacklist(request: Request) -> JSONResponse:
    """`list`: the bans that were made by the API or by the server, `limit` of them from `page`."""
    node: Node = request.app.state.node
    start, limit = api.window(request)
    bans = node.records(KIND)
    now_ms = int(time.time() * 1_000)
    shown = [
        {"name": name, **bans[name]}
        for name in sorted(bans)
        if not is_over(ban_of(name, bans[name]), now_ms)
    ]
    return api.answer({"data": shown[start : start + limit], "total_count": len(shown)})


async def create(request: Request) -> JSONResponse:
    """`create`: ban somebody; every worker knows it, and ends whom it meets, with the answer."""
    wanted = await api.body(request, Creation)
    if not 0 < len(wanted.name) <= _NAME_MAX or "\0" in wanted.name:
        raise api.Wrong(400, f"name must have 1 to {_NAME_MAX} characters, and not U+0000")
    value = {key: getattr(wanted, key) for key in wanted.__struct_fields__ if key != "name"}
    try:
        ban = ban_of(wanted.name, value)
    except ValueError as error:
        raise api.Wrong(400, str(error)) from error
    node: Node = request.app.state.node
    over = ended(node.records(KIND), int(time.time() * 1_000))
    changes: list[tuple[str, str, dict[str, Any] | None]] = [(KIND, name, None) for name in over]
    changes.append((KIND, ban.name, record_of(ban)))
    return api.done(await node.change(changes))


async def delete(request: Request) -> JSONResponse:
    """`delete`: end a ban."""
    wanted = await api.body(request, Deletion)
    node: Node = request.app.state.node
    if wanted.name not in node.records(KIND):
        raise api.Wrong(404, f"there is no ban with the name {wanted.name[:256]!r}")
    return api.done(await node.change([(KIND, wanted.name, None)]))


def ended(bans: Mapping[str, Mapping[str, Any]], now_ms: int) -> list[str]:
    """Return the names of the bans that are over; they are removed when others are made."""
    return [name for name, value in bans.items() if 0 < value["end_time"] * 1_000 <= now_ms]


ROUTES: Final[list[BaseRoute]] = [
    Route("/cluster/blacklist/list", blacklist),
    Route("/cluster/blacklist/create", create, methods=["POST"]),
    Route("/cluster/blacklist/delete", delete, methods=["POST"]),
]
