"""The MQTT console: a page on which a browser connects over WebSocket, subscribes and publishes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STATIC: Final = Path(__file__).with_name("static")
# Scripts and styles are ours alone; MQTT may be on another host than the page. The library keeps
# its time in a worker, which a browser does not slow down while the page is in the background.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "worker-src blob:; connect-src 'self' ws: wss:; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class WebSocketListeners:
    """Where browsers find MQTT: the ports of `ws` and `wss`, None when closed, and the path."""

    ws: int | None
    wss: int | None
    path: str


def routes(listeners: WebSocketListeners) -> Sequence[BaseRoute]:
    """Return the routes of the console: `/` leads to `/dashboard/`, which holds its files."""

    async def lead(_request: Request) -> Response:
        return RedirectResponse("/dashboard/")

    async def tell(_request: Request) -> Response:
        return JSONResponse(asdict(listeners))

    files = _Guarded(StaticFiles(directory=_STATIC, html=True))
    return [
        Route("/", lead),
        Route("/dashboard", lead),
        Route("/dashboard/listeners.json", tell),
        Mount("/dashboard", files),
    ]


class _Guarded:
    """An application whose answers tell the browser what their page may do."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["content-security-policy"] = _POLICY
                headers["x-content-type-options"] = "nosniff"
                headers["cache-control"] = "no-cache"
            await send(message)

        await self._app(scope, receive, guarded)
