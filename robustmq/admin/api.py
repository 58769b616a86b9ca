"""How `/api` answers, and whom: the envelope, its errors, and the networks that are trusted."""

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from robustmq.errors import Refusal, Refused

BODY_BYTES: Final = 1 << 20
"""Bytes of a request's body at most."""

PAGE: Final = 10
"""Entries of a page unless asked for more, as upstream."""

_DEEPEST: Final = 1_000_000_000
_WRONG: Final = 100
_STATUS: Final = {Refusal.QUOTA_EXCEEDED: 409, Refusal.UNAVAILABLE: 503, Refusal.BUSY: 503}

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
S = TypeVar("S", bound=Struct)


class Wrong(Exception):
    """The request cannot be done: an HTTP status, and a sentence that says why and what to do."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


def answer(data: object, missing: Sequence[int] = ()) -> JSONResponse:
    """Make the answer to what went well; `missing` are the workers that it lacks."""
    content: dict[str, object] = {"code": 0, "data": data, "error": None}
    if missing:
        content["missing"] = [f"worker {core}" for core in missing]
    return JSONResponse(content)


def refuse(status: int, sentence: str) -> JSONResponse:
    """Make the answer to what did not go well."""
    return JSONResponse({"code": _WRONG, "data": None, "error": sentence}, status_code=status)


async def wrong(_request: Request, error: Exception) -> JSONResponse:
    """Answer a request that raised Wrong; the application's handler of it."""
    assert isinstance(error, Wrong)
    return refuse(error.status, error.sentence)


def done(result: list[int] | Refused) -> JSONResponse:
    """Answer a change of what all nodes know."""
    if isinstance(result, Refused):
        raise refused(result)
    return answer("success", result)


def refused(refusal: Refused) -> Wrong:
    """Make what is raised when something was refused."""
    return Wrong(_STATUS.get(refusal.code, 400), refusal.detail)


async def body(request: Request, struct: type[S]) -> S:
    """Read a JSON body; raises Wrong when it is none, too large, or not what `struct` says."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        # Which no page of another origin can send unasked.
        raise Wrong(415, "the body must be sent with Content-Type: application/json")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > BODY_BYTES:
            raise Wrong(413, f"the body exceeds {BODY_BYTES} bytes")
    try:
        return msgspec.json.decode(data, type=struct)
    except msgspec.MsgspecError as error:
        raise Wrong(400, f"the body is not what is expected: {error}") from error


def number(request: Request, name: str, default: int, most: int) -> int:
    """Read a parameter of the query from 0 to `most`; raises Wrong."""
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise Wrong(400, f"{name} must be a number from 0 to {most}, not {text[:100]!r}")
    return int(text)


def window(request: Request) -> tuple[int, int]:
    """Read which part of a list is wanted, `limit` from `page` on: its first place and its length.

    Raises Wrong.
    """
    most: int = request.app.state.max_page
    limit = number(request, "limit", min(PAGE, most), most)
    return max(number(request, "page", 1, _DEEPEST) - 1, 0) * limit, limit


class Guard:
    """Lets those networks through that are trusted; everybody else is told so."""

    def __init__(self, app: ASGIApp, networks: Iterable[str]) -> None:
        self._app = app
        self._networks: list[Network] = [ipaddress.ip_network(each) for each in networks]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403."""
        client: Any = scope.get("client")
        if client is not None and self._is_trusted(client[0]):
            await self._app(scope, receive, send)
            return
        refusal = refuse(
            403,
            "this address may not use the administration; name it in admin.trusted_networks",
        )
        await refusal(scope, receive, send)

    def _is_trusted(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None) or address
        return any(mapped in network for network in self._networks)
