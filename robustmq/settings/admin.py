"""The configuration of the administration: `[admin]`."""

from typing import Annotated

from msgspec import Struct

from robustmq.settings.bounds import between


class Admin(Struct, frozen=True, kw_only=True):
    """`[admin]`: The administration of a node over HTTP, below /api.

    trusted_networks: Who may use it, as addresses or networks; /metrics and /health are for all.
    answer_timeout_ms: Milliseconds that workers have to answer; who has not is named in the answer.
    max_records: Records, such as bans and users, that the cluster keeps, and keys beside them; the
        node that is asked for one more looks at it.
    max_page: Entries of one page of a list.
    """

    trusted_networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    answer_timeout_ms: Annotated[int, between(10, 600_000)] = 2_000
    max_records: Annotated[int, between(0, 1_000_000)] = 100_000
    max_page: Annotated[int, between(1, 10_000)] = 1_000
