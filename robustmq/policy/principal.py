"""Who acts: the identity that every decision of policy is made for."""

from typing import Final

import msgspec

from robustmq.message.tenancy import DEFAULT_TENANT

_BORDER = "\0"

BRIDGE: Final = "bridge"
"""The listener of our own bridges: no network, so whoever comes from there is who it says."""


class Peer(msgspec.Struct, frozen=True, gc=False):
    """Who is at the other end of a connection, as the transport knows it.

    `address` is the peer's IP address, "" when it has none; `listener` the name of the listener
    that took it (`tcp`, `tls`, `ws`, `wss`, `quic`, `unix`); `certified` the user that its
    certificate names, None without one.
    """

    address: str = ""
    listener: str = "tcp"
    certified: str | None = None

    def principal(
        self,
        client_id: str,
        username: str | None,
        tenant: str = DEFAULT_TENANT,
        superuser: bool = False,
    ) -> "Principal":
        """Make the identity of a client that this peer turns out to be."""
        return Principal(client_id, username, self.address, self.listener, tenant, superuser)


class Principal(msgspec.Struct, frozen=True, gc=False):
    """An authenticated client: its id, the user name or None, and where it comes from.

    `client_id` and `username` are names within the `tenant`.
    """

    client_id: str
    username: str | None = None
    address: str = ""
    listener: str = "tcp"
    tenant: str = DEFAULT_TENANT
    superuser: bool = False

    @property
    def identity(self) -> str:
        """The client id, qualified by the tenant unless that is the default: one for a session.

        U+0000 is in no client id, so nobody can write the identity of another tenant's client.
        """
        if self.tenant == DEFAULT_TENANT:
            return self.client_id
        return f"{_BORDER}{self.tenant}{_BORDER}{self.client_id}"


def client_of(identity: str) -> tuple[str, str]:
    """The tenant and the client id of an identity."""
    if not identity.startswith(_BORDER):
        return DEFAULT_TENANT, identity
    _, tenant, client_id = identity.split(_BORDER, 2)
    return tenant, client_id


SERVER: Final = Principal("$server", listener="", superuser=True)
"""The server itself: it alone publishes below `$SYS`."""
