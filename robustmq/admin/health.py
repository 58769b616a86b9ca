"""What an orchestrator asks: whether the node lives, and whether it may be sent clients."""

from collections.abc import Sequence

from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse

from robustmq.admin.prometheus import Core, Snapshot
from robustmq.metrics import STORAGE_REFUSING, TABLE

READY = "ready"
ALARMS = (STORAGE_REFUSING,)
"""The gauges that are not 0 while an administrator should look."""


class Live(HTTPEndpoint):
    """`/health/live`: the process answers."""

    async def get(self, _request: Request) -> JSONResponse:
        """Answer 200; a process that cannot is not alive."""
        return JSONResponse({"status": "live"})


class Ready(HTTPEndpoint):
    """`/health/ready`: every worker takes clients."""

    async def get(self, request: Request) -> JSONResponse:
        """Answer 200 when all workers are ready, else 503 with the phases of those that are not.

        A node that is cut off from its cluster is not ready: others may have what it has.
        A node whose disk is full serves those who read, so it stays ready; `alarms` says which
        workers raise what.
        """
        snapshot: Snapshot = request.app.state.snapshot
        waiting = {name: phase for name, phase in snapshot.phases().items() if phase != READY}
        answer: dict[str, object] = {"status": "not ready" if waiting else READY}
        if waiting:
            answer["waiting"] = waiting
        if snapshot.is_isolated():
            answer["status"] = "not ready"
            answer["isolated"] = "no leader of the cluster is heard: is a majority running?"
        cores = snapshot.cores()
        alarms = {TABLE[cell].name: raised for cell in ALARMS if (raised := _raised(cores, cell))}
        if alarms:
            answer["alarms"] = alarms
        return JSONResponse(answer, status_code=200 if answer["status"] == READY else 503)


def _raised(cores: Sequence[Core], cell: int) -> list[str]:
    return [f"worker {core.number}" for core in cores if core.counters[cell]]
