"""The HTTP application of a node: metrics and health now, the administration later."""

from http import HTTPStatus

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from robustmq.admin.health import Live, Ready
from robustmq.admin.prometheus import Exposition, Snapshot


class Metrics(HTTPEndpoint):
    """`/metrics`: the exposition for Prometheus or OpenMetrics, as the scraper accepts."""

    async def get(self, request: Request) -> Response:
        """Answer 200 with the text."""
        exposition: Exposition = request.app.state.exposition
        text, content_type = exposition.write(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})


def create(snapshot: Snapshot) -> Starlette:
    """Make the application; everything that it shows it asks of `snapshot`.

    Errors are JSON: `{"error": "Not Found"}` with 404, and 405 with the Allow header.
    """
    app = Starlette(
        routes=[
            Route("/metrics", Metrics),
            Route("/health/live", Live),
            Route("/health/ready", Ready),
        ],
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )
    app.router.redirect_slashes = False
    app.state.snapshot = snapshot
    app.state.exposition = Exposition(snapshot)
    return app


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = {"error": HTTPStatus(error.status_code).phrase}
    return JSONResponse(reason, status_code=error.status_code, headers=error.headers)


async def _failed(_request: Request, _error: Exception) -> Response:
    return JSONResponse({"error": HTTPStatus.INTERNAL_SERVER_ERROR.phrase}, status_code=500)
