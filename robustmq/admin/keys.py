"""`/api/cluster/kv`: a small key-value store that all nodes agree on."""

from typing import Final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from robustmq.admin import api
from robustmq.admin.node import Node
from robustmq.errors import Refused

_KEY_MAX: Final = 1_024
_VALUE_MAX: Final = 65_536
_PAGE: Final = 100


class Setting(Struct):
    """What `set` is sent."""

    key: str
    value: str


class Deletion(Struct):
    """What `delete` is sent."""

    key: str


async def keys(request: Request) -> JSONResponse:
    """`list`: keys that begin with `prefix`, `limit` of them from `start` on, and their values.

    They are as the cluster has committed them when it was asked; `next` is where to go on.
    """
    node: Node = request.app.state.node
    most = min(_PAGE, request.app.state.max_page)
    limit = max(api.number(request, "limit", min(10, most), most), 1)
    prefix = _checked(request.query_params.get("prefix", ""))
    found = await node.keys(prefix, _checked(request.query_params.get("start", "")), limit)
    if isinstance(found, Refused):
        raise api.refused(found)
    shown = [{"key": each.key, "value": each.value.decode()} for each in found.keys]
    return api.answer({"data": shown, "next": found.after})


async def put(request: Request) -> JSONResponse:
    """`set`: set a key."""
    wanted = await api.body(request, Setting)
    value = wanted.value.encode()
    if len(value) > _VALUE_MAX:
        raise api.Wrong(400, f"value has {_VALUE_MAX} bytes at most")
    node: Node = request.app.state.node
    return api.done(await node.set_key(_key(wanted.key), value))


async def delete(request: Request) -> JSONResponse:
    """`delete`: remove a key; it may be missing."""
    wanted = await api.body(request, Deletion)
    node: Node = request.app.state.node
    return api.done(await node.set_key(_key(wanted.key), None))


def _key(key: str) -> str:
    if not key:
        raise api.Wrong(400, f"key must have 1 to {_KEY_MAX} bytes")
    return _checked(key)


def _checked(key: str) -> str:
    if len(key.encode()) > _KEY_MAX:
        raise api.Wrong(400, f"a key has {_KEY_MAX} bytes at most")
    return key


ROUTES: Final[list[BaseRoute]] = [
    Route("/cluster/kv/list", keys),
    Route("/cluster/kv/set", put, methods=["POST"]),
    Route("/cluster/kv/delete", delete, methods=["POST"]),
]
