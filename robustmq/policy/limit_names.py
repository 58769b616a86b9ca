"""What the limits of a node count, by name: agreed before the workers are forked."""

from robustmq.config import Config
from robustmq.policy.connection_quota import ALL, LISTENERS


def ledger_names(config: Config) -> list[str]:
    """Return the names of all that workers count for limits of the whole node."""
    names = [f"{what}.{name}" for what in ("open", "connected") for name in (ALL, *LISTENERS)]
    groups = [*LISTENERS, *(limit.filter for limit in config.publish_limits)]
    names += [f"{what}.{group}" for what in ("messages", "bytes") for group in groups]
    return names
