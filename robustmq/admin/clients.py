"""`/api/mqtt`: clients, sessions and subscriptions of all workers."""

from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from robustmq.admin.lists import listed


async def clients(request: Request) -> JSONResponse:
    """`client/list`: who is connected; `client_id` names one."""
    return await listed(request, "mqtt.clients", "client_id")


async def sessions(request: Request) -> JSONResponse:
    """`session/list`: the sessions, connected or not; `client_id` names one."""
    return await listed(request, "mqtt.sessions", "client_id")


async def subscriptions(request: Request) -> JSONResponse:
    """`subscribe/list`: who subscribes to what; `client_id` names whose."""
    return await listed(request, "mqtt.subscriptions", "client_id")


ROUTES: Final[list[BaseRoute]] = [
    Route("/mqtt/client/list", clients),
    Route("/mqtt/session/list", sessions),
    Route("/mqtt/subscribe/list", subscriptions),
]
