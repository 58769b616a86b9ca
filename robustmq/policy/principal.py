"""Who acts: the identity that every decision of policy is made for."""

import msgspec


class Principal(msgspec.Struct, frozen=True, gc=False):
    """An authenticated client: its id, the user name or None, and the peer's address."""

    client_id: str
    username: str | None = None
    address: str = ""
