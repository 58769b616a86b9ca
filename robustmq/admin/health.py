"""What an orchestrator asks: whether the node lives, and whether it may be sent clients."""

from collections.abc import Callable

from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse

READY = "ready"


class Live(HTTPEndpoint):
    """`/health/live`: the process answers."""

    async def get(self, _request: Request) -> JSONResponse:
        """Answer 200; a process that cannot is not alive."""
        return JSONResponse({"status": "live"})


class Ready(HTTPEndpoint):
    """`/health/ready`: every worker takes clients."""

    async def get(self, request: Request) -> JSONResponse:
        """Answer 200 when all workers are ready, else 503 with the phases of those that are not."""
        phases: Callable[[], dict[str, str]] = request.app.state.snapshot.phases
        waiting = {name: phase for name, phase in phases().items() if phase != READY}
        if waiting:
            return JSONResponse({"status": "not ready", "waiting": waiting}, status_code=503)
        return JSONResponse({"status": READY})
