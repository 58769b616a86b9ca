"""`/api/cluster/user`: the users that the cluster has beside those of the configuration."""

import asyncio
import re
import secrets
from typing import Final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from robustmq.admin import api
from robustmq.admin.node import Node
from robustmq.message.tenancy import DEFAULT_TENANT
from robustmq.policy.passwords import METHODS, written
from robustmq.policy.users import KIND
from robustmq.settings.listener import TENANT_PATTERN

_NAME_MAX: Final = 512
_PASSWORD_MAX: Final = 1_024
_SALT_BYTES: Final = 16
_TENANT: Final = re.compile(TENANT_PATTERN)


class Creation(Struct):
    """What `create` is sent; as upstream's. Of the password only verifiers are kept."""

    username: str
    password: str
    tenant: str = DEFAULT_TENANT
    is_superuser: bool = False
    client_id: str = ""


class Deletion(Struct):
    """What `delete` is sent."""

    username: str
    tenant: str = DEFAULT_TENANT


async def users(request: Request) -> JSONResponse:
    """`list`: the users that were made by the API, `limit` of them from `page`; no passwords."""
    node: Node = request.app.state.node
    start, limit = api.window(request)
    known = node.records(KIND)
    shown = []
    for name in sorted(known)[start : start + limit]:
        tenant, _, username = name.partition("/")
        shown.append(
            {
                "tenant": tenant,
                "username": username,
                "is_superuser": known[name].get("superuser", False),
                "client_id": known[name].get("client_id", ""),
            }
        )
    return api.answer({"data": shown, "total_count": len(known)})


async def create(request: Request) -> JSONResponse:
    """`create`: a user that may connect on every node; one that exists is refused."""
    wanted = await api.body(request, Creation)
    if not 0 < len(wanted.password.encode()) <= _PASSWORD_MAX:
        raise api.Wrong(400, f"password must have 1 to {_PASSWORD_MAX} bytes")
    name = _name(wanted.tenant, wanted.username)
    # Each takes milliseconds, in which others are answered.
    passwords = await asyncio.to_thread(_verifiers, wanted.password)
    value = {
        "password": passwords,
        "client_id": wanted.client_id,
        "superuser": wanted.is_superuser,
    }
    node: Node = request.app.state.node
    return api.done(await node.change([(KIND, name, value)], create=True))


async def delete(request: Request) -> JSONResponse:
    """`delete`: who was made by the API may not connect any more; who is connected stays."""
    wanted = await api.body(request, Deletion)
    node: Node = request.app.state.node
    name = _name(wanted.tenant, wanted.username)
    if name not in node.records(KIND):
        raise api.Wrong(404, f"no user was made by the API with the name {wanted.username[:256]!r}")
    return api.done(await node.change([(KIND, name, None)]))


def _name(tenant: str, username: str) -> str:
    if not 0 < len(username.encode()) <= _NAME_MAX or "\0" in username:
        raise api.Wrong(400, f"username must have 1 to {_NAME_MAX} bytes, and not U+0000")
    if not tenant or not _TENANT.fullmatch(tenant):
        raise api.Wrong(400, "tenant must have 1 to 128 letters, digits, _, . and -")
    return f"{tenant}/{username}"


def _verifiers(password: str) -> list[str]:
    return [written(method, password, secrets.token_bytes(_SALT_BYTES)) for method in METHODS]


ROUTES: Final[list[BaseRoute]] = [
    Route("/cluster/user/list", users),
    Route("/cluster/user/create", create, methods=["POST"]),
    Route("/cluster/user/delete", delete, methods=["POST"]),
]
