"""Which handler answers which request: one table."""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.call import Call
from robustmq.kafka.group_coordinator import GroupCoordinator
from robustmq.kafka.handlers.acls import Acls
from robustmq.kafka.handlers.cluster import Cluster
from robustmq.kafka.handlers.configs import Configs
from robustmq.kafka.handlers.credentials import Credentials
from robustmq.kafka.handlers.fetch import Fetch
from robustmq.kafka.handlers.group_table import group_handlers
from robustmq.kafka.handlers.list_offsets import ListOffsets
from robustmq.kafka.handlers.metadata import Metadata
from robustmq.kafka.handlers.produce import Produce
from robustmq.kafka.handlers.quotas import Quotas
from robustmq.kafka.handlers.records import Records
from robustmq.kafka.handlers.topics import Topics
from robustmq.kafka.handlers.transaction_table import transaction_handlers
from robustmq.kafka.protocol import Kafka

Handler: TypeAlias = Callable[[Call[Any]], None]


def handlers(kafka: Kafka) -> dict[int, Handler]:
    """Make the handlers of a core; return the one of each API key.

    An API that is not here is not offered, whatever `api_keys` says of it.
    """
    produce, fetch = Produce(kafka), Fetch(kafka)
    offsets, records = ListOffsets(kafka), Records(kafka)
    groups, credentials = GroupCoordinator(kafka), Credentials(kafka)
    return {
        **group_handlers(kafka, groups),
        **transaction_handlers(kafka, groups),
        ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS: credentials.describe,
        ApiKey.ALTER_USER_SCRAM_CREDENTIALS: credentials.alter,
        ApiKey.PRODUCE: produce.produce,
        ApiKey.FETCH: fetch.fetch,
        ApiKey.LIST_OFFSETS: offsets.list_offsets,
        ApiKey.OFFSET_FOR_LEADER_EPOCH: offsets.epoch_ends,
        ApiKey.DELETE_RECORDS: records.delete_records,
        ApiKey.DESCRIBE_PRODUCERS: records.describe_producers,
        ApiKey.DESCRIBE_LOG_DIRS: records.describe_log_dirs,
        **_administration(kafka),
    }


ADMINISTRATIVE: Final = frozenset(
    (
        ApiKey.CREATE_TOPICS,
        ApiKey.DELETE_TOPICS,
        ApiKey.CREATE_PARTITIONS,
        ApiKey.DESCRIBE_TOPIC_PARTITIONS,
        ApiKey.DESCRIBE_CONFIGS,
        ApiKey.ALTER_CONFIGS,
        ApiKey.INCREMENTAL_ALTER_CONFIGS,
        ApiKey.DESCRIBE_ACLS,
        ApiKey.CREATE_ACLS,
        ApiKey.DELETE_ACLS,
        ApiKey.DESCRIBE_CLIENT_QUOTAS,
        ApiKey.ALTER_CLIENT_QUOTAS,
    )
)
"""What costs much for each element (`kafka_runtime.max_admin_elements`)."""


def _administration(kafka: Kafka) -> dict[int, Handler]:
    metadata, cluster = Metadata(kafka), Cluster(kafka)
    topics, configs = Topics(kafka), Configs(kafka)
    acls, quotas = Acls(kafka), Quotas(kafka)
    return {
        ApiKey.METADATA: metadata.metadata,
        ApiKey.DESCRIBE_TOPIC_PARTITIONS: metadata.describe_topic_partitions,
        ApiKey.DESCRIBE_CLUSTER: cluster.describe_cluster,
        ApiKey.ELECT_LEADERS: cluster.elect_leaders,
        ApiKey.LIST_PARTITION_REASSIGNMENTS: cluster.list_partition_reassignments,
        ApiKey.CREATE_TOPICS: topics.create_topics,
        ApiKey.DELETE_TOPICS: topics.delete_topics,
        ApiKey.CREATE_PARTITIONS: topics.create_partitions,
        ApiKey.DESCRIBE_CONFIGS: configs.describe_configs,
        ApiKey.ALTER_CONFIGS: configs.alter_configs,
        ApiKey.INCREMENTAL_ALTER_CONFIGS: configs.incremental_alter_configs,
        ApiKey.LIST_CONFIG_RESOURCES: configs.list_config_resources,
        ApiKey.DESCRIBE_ACLS: acls.describe_acls,
        ApiKey.CREATE_ACLS: acls.create_acls,
        ApiKey.DELETE_ACLS: acls.delete_acls,
        ApiKey.DESCRIBE_CLIENT_QUOTAS: quotas.describe_client_quotas,
        ApiKey.ALTER_CLIENT_QUOTAS: quotas.alter_client_quotas,
    }
