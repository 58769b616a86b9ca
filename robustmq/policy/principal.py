"""Who acts: the identity that every decision of policy is made for."""

import msgspec


class Peer(msgspec.Struct, frozen=True, gc=False):
    """Who is at the other end of a connection, as the transport knows it.

    `address` is the peer's IP address, "" when it has none; `listener` the name of the listener
    that took it (`tcp`, `tls`, `ws`, `wss`, `quic`, `unix`); `certified` the user that its
    certificate names, None without one.
    """

    address: str = ""
    listener: str = "tcp"
    certified: str | None = None

    def principal(self, client_id: str, username: str | None) -> "Principal":
        """Make the identity of a client that this peer turns out to be."""
        return Principal(client_id, username, self.address, self.listener)


class Principal(msgspec.Struct, frozen=True, gc=False):
    """An authenticated client: its id, the user name or None, and where it comes from."""

    client_id: str
    username: str | None = None
    address: str = ""
    listener: str = "tcp"
