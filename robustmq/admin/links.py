"""`/api/cluster/links`: the links between cores of this node and cores of other nodes."""

from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from robustmq.admin.lists import listed


async def links(request: Request) -> JSONResponse:
    """`links`: each with the core it leads to, whether it is connected, what waits, why not."""
    return await listed(request, "cluster.links")


ROUTES: Final[list[BaseRoute]] = [Route("/cluster/links", links)]
