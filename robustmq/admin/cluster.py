"""`/api/cluster`: what this node knows of its cluster, and who is in it."""

from typing import Any, Final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from robustmq.admin import api
from robustmq.admin.node import Node


class Named(Struct):
    """What `promote` and `replace` are sent: which node."""

    node_id: int


class Leaving(Struct):
    """What `leave` is sent; `force`: although the cluster loses the majority by it."""

    node_id: int
    force: bool = False


async def status(request: Request) -> JSONResponse:
    """`status`: nodes, groups, leaders, terms and indices as this node knows them."""
    return api.answer(await _asked(request, "status", {}))


async def leave(request: Request) -> JSONResponse:
    """`node/leave`: a node goes for good; others take over what it has."""
    wanted = await api.body(request, Leaving)
    arguments = {"node": wanted.node_id, "force": wanted.force}
    return api.answer(await _asked(request, "leave", arguments))


async def promote(request: Request) -> JSONResponse:
    """`node/promote`: a node that only followed has a vote from now on."""
    wanted = await api.body(request, Named)
    return api.answer(await _asked(request, "promote", {"node": wanted.node_id}))


async def replace(request: Request) -> JSONResponse:
    """`node/replace`: a node that is lost is forgotten, so that a new one may have its number."""
    wanted = await api.body(request, Named)
    return api.answer(await _asked(request, "replace", {"node": wanted.node_id}))


async def _asked(request: Request, kind: str, arguments: dict[str, Any]) -> object:
    node: Node = request.app.state.node
    try:
        return await node.ask_cluster(kind, arguments)
    except ValueError as error:
        raise api.Wrong(409, str(error)) from error
    except TimeoutError as error:
        sentence = "the meta process of this node does not answer; try again later"
        raise api.Wrong(503, sentence) from error


ROUTES: Final[list[BaseRoute]] = [
    Route("/cluster/status", status),
    Route("/cluster/node/leave", leave, methods=["POST"]),
    Route("/cluster/node/promote", promote, methods=["POST"]),
    Route("/cluster/node/replace", replace, methods=["POST"]),
]
