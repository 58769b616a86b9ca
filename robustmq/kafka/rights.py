"""What may be done to what, in Kafka's terms and numbers (AclOperation, ResourceType)."""

import enum
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from robustmq.broker.api import Principal


class Operation(enum.IntEnum):
    """What somebody wants to do."""

    ALL = 2
    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    CLUSTER_ACTION = 9
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11
    IDEMPOTENT_WRITE = 12


class Resource(enum.IntEnum):
    """What it is done to; CLUSTER has one name, `CLUSTER_NAME`."""

    TOPIC = 2
    GROUP = 3
    CLUSTER = 4
    TRANSACTIONAL_ID = 5


CLUSTER_NAME = "kafka-cluster"

OPERATIONS: Final[Mapping[Resource, Sequence[Operation]]] = MappingProxyType(
    {
        Resource.TOPIC: (
            Operation.READ,
            Operation.WRITE,
            Operation.CREATE,
            Operation.DELETE,
            Operation.ALTER,
            Operation.DESCRIBE,
            Operation.DESCRIBE_CONFIGS,
            Operation.ALTER_CONFIGS,
        ),
        Resource.GROUP: (
            Operation.READ,
            Operation.DELETE,
            Operation.DESCRIBE,
            Operation.DESCRIBE_CONFIGS,
            Operation.ALTER_CONFIGS,
        ),
        Resource.CLUSTER: (
            Operation.CREATE,
            Operation.ALTER,
            Operation.DESCRIBE,
            Operation.CLUSTER_ACTION,
            Operation.DESCRIBE_CONFIGS,
            Operation.ALTER_CONFIGS,
            Operation.IDEMPOTENT_WRITE,
        ),
        Resource.TRANSACTIONAL_ID: (Operation.WRITE, Operation.DESCRIBE),
    }
)
"""What can be done to what."""


class Authority(Protocol):
    """Who decides what somebody may do."""

    @property
    def version(self) -> int:
        """Another number whenever it may decide otherwise than before."""

    def may(
        self, principal: Principal, operation: Operation, resource: Resource, name: str
    ) -> bool:
        """Say whether it is allowed; `name` as the principal's tenant writes it."""
