"""The HTTP application of a node: metrics, health, the administration and the MQTT console."""

from http import HTTPStatus

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from robustmq.admin import (
    alarms,
    api,
    blacklist,
    bridges,
    clients,
    cluster,
    console,
    delayed,
    keys,
    links,
    slow_subscribers,
    topics,
    users,
)
from robustmq.admin.health import Live, Ready
from robustmq.admin.node import Node
from robustmq.admin.prometheus import Exposition, Snapshot
from robustmq.settings.admin import Admin


class Metrics(HTTPEndpoint):
    """`/metrics`: the exposition for Prometheus or OpenMetrics, as the scraper accepts."""

    async def get(self, request: Request) -> Response:
        """Answer 200 with the text."""
        exposition: Exposition = request.app.state.exposition
        text, content_type = exposition.write(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})


def create(
    snapshot: Snapshot,
    node: Node,
    settings: Admin,
    listeners: console.WebSocketListeners,
    raised: alarms.Alarms | None = None,
) -> Starlette:
    """Make the application; what it shows it asks of `snapshot`, and below `/api` of `node`.

    `listeners` are where the console, a page, finds MQTT; `raised` the alarms of the node.

    Errors are JSON: `{"error": "Not Found"}` with 404, and 405 with the Allow header.
    """
    board = raised or alarms.Alarms()
    guard = Middleware(api.Guard, networks=settings.trusted_networks)
    app = Starlette(
        routes=[
            Route("/metrics", Metrics),
            Route("/health/live", Live),
            Route("/health/ready", Ready),
            Mount(
                "/api",
                routes=[
                    *alarms.ROUTES,
                    *blacklist.ROUTES,
                    *bridges.ROUTES,
                    *clients.ROUTES,
                    *cluster.ROUTES,
                    *links.ROUTES,
                    *delayed.ROUTES,
                    *keys.ROUTES,
                    *slow_subscribers.ROUTES,
                    *topics.ROUTES,
                    *users.ROUTES,
                ],
                middleware=[guard],
            ),
            *console.routes(listeners),
        ],
        exception_handlers={
            HTTPException: _refused,
            api.Wrong: api.wrong,
            Exception: _failed,
        },
    )
    app.router.redirect_slashes = False
    app.state.snapshot = snapshot
    app.state.node = node
    app.state.max_page = settings.max_page
    app.state.alarms = board
    app.state.exposition = Exposition(snapshot, alarms.AlarmCollector(board))
    return app


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = {"error": HTTPStatus(error.status_code).phrase}
    return JSONResponse(reason, status_code=error.status_code, headers=error.headers)


async def _failed(_request: Request, _error: Exception) -> Response:
    return JSONResponse({"error": HTTPStatus.INTERNAL_SERVER_ERROR.phrase}, status_code=500)
