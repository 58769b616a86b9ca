"""Which handler answers which request: one table."""

from collections.abc import Callable
from typing import Any, TypeAlias

from robustmq.kafka.call import Call
from robustmq.kafka.protocol import Kafka

Handler: TypeAlias = Callable[[Call[Any]], None]


def handlers(kafka: Kafka) -> dict[int, Handler]:
    """Make the handlers of a core; return the one of each API key.

    An API that is not here is not offered, whatever `api_keys` says of it.
    """
    del kafka
    return {}


COORDINATED: dict[int, Callable[[str, Any], str]] = {}
"""The APIs for a coordinator: the key from the client's tenant and the request."""
