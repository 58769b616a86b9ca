"""Who acts: the identity that every decision of policy is made for."""

from typing import Final

import msgspec

DEFAULT_TENANT: Final = "default"
"""The tenant of everybody who belongs to no other."""


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
