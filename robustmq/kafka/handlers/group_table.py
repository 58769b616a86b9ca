"""Which handler answers which request about groups."""

from collections.abc import Callable, Mapping
from typing import Any

from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.call import Call
from robustmq.kafka.group_coordinator import GroupCoordinator
from robustmq.kafka.handlers.consumer_groups import ConsumerGroups
from robustmq.kafka.handlers.group_listing import GroupListing
from robustmq.kafka.handlers.groups import Coordinators, Groups
from robustmq.kafka.handlers.offsets import Offsets
from robustmq.kafka.protocol import Kafka


def group_handlers(
    kafka: Kafka, coordinator: GroupCoordinator
) -> Mapping[int, Callable[[Call[Any]], None]]:
    """Make the handlers of a core whose groups `coordinator` has."""
    groups, offsets = Groups(kafka, coordinator), Offsets(kafka, coordinator)
    listing, consumers = GroupListing(kafka, coordinator), ConsumerGroups(kafka, coordinator)
    return {
        ApiKey.FIND_COORDINATOR: Coordinators(kafka).find_coordinator,
        ApiKey.JOIN_GROUP: groups.join_group,
        ApiKey.SYNC_GROUP: groups.sync_group,
        ApiKey.HEARTBEAT: groups.heartbeat,
        ApiKey.LEAVE_GROUP: groups.leave_group,
        ApiKey.LIST_GROUPS: listing.list_groups,
        ApiKey.DESCRIBE_GROUPS: listing.describe_groups,
        ApiKey.DELETE_GROUPS: listing.delete_groups,
        ApiKey.OFFSET_COMMIT: offsets.offset_commit,
        ApiKey.OFFSET_FETCH: offsets.offset_fetch,
        ApiKey.OFFSET_DELETE: offsets.offset_delete,
        ApiKey.CONSUMER_GROUP_HEARTBEAT: consumers.heartbeat,
        ApiKey.CONSUMER_GROUP_DESCRIBE: consumers.describe,
    }
