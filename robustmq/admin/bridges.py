"""`/api/mqtt/bridge`: the bridges to other brokers, and how they are."""

from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from robustmq.admin.lists import listed


async def bridges(request: Request) -> JSONResponse:
    """`bridge/list`: each with its address, whether it is connected, since when, and why not."""
    return await listed(request, "mqtt.bridges")


ROUTES: Final[list[BaseRoute]] = [Route("/mqtt/bridge/list", bridges)]
