"""The requests of Kafka that are spoken here, and in which versions: one table.

What a client does depends on what is advertised: some features of older clients hang on one exact
version, so the ranges reach down where a client looks, and up where all clients still work.
"""

import enum
from collections.abc import Mapping
from types import ModuleType
from typing import Final, NamedTuple

from robustmq.kafka.messages import (
    acls,
    configs,
    connection,
    consumer_groups,
    fetch,
    group_listing,
    group_offsets,
    groups,
    inner,
    metadata,
    offsets,
    placement,
    produce,
    quotas,
    scram,
    topics,
    transaction_listing,
    transactions,
)
from robustmq.kafka.schema import Message


class ApiKey(enum.IntEnum):
    """The number of a request, which is its first field on the wire."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    DESCRIBE_GROUPS = 15
    LIST_GROUPS = 16
    SASL_HANDSHAKE = 17
    API_VERSIONS = 18
    CREATE_TOPICS = 19
    DELETE_TOPICS = 20
    DELETE_RECORDS = 21
    INIT_PRODUCER_ID = 22
    OFFSET_FOR_LEADER_EPOCH = 23
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28
    DESCRIBE_ACLS = 29
    CREATE_ACLS = 30
    DELETE_ACLS = 31
    DESCRIBE_CONFIGS = 32
    ALTER_CONFIGS = 33
    DESCRIBE_LOG_DIRS = 35
    SASL_AUTHENTICATE = 36
    CREATE_PARTITIONS = 37
    DELETE_GROUPS = 42
    ELECT_LEADERS = 43
    INCREMENTAL_ALTER_CONFIGS = 44
    LIST_PARTITION_REASSIGNMENTS = 46
    OFFSET_DELETE = 47
    DESCRIBE_CLIENT_QUOTAS = 48
    ALTER_CLIENT_QUOTAS = 49
    DESCRIBE_USER_SCRAM_CREDENTIALS = 50
    ALTER_USER_SCRAM_CREDENTIALS = 51
    DESCRIBE_CLUSTER = 60
    DESCRIBE_PRODUCERS = 61
    DESCRIBE_TRANSACTIONS = 65
    LIST_TRANSACTIONS = 66
    CONSUMER_GROUP_HEARTBEAT = 68
    CONSUMER_GROUP_DESCRIBE = 69
    LIST_CONFIG_RESOURCES = 74
    DESCRIBE_TOPIC_PARTITIONS = 75


class InnerKey(enum.IntEnum):
    """The number of a request of one core to another; of clients it is not taken."""

    CHECK_TRANSACTION = 1_000
    SETTLE_OFFSETS = 1_001


class Api(NamedTuple):
    """A request, its answer, and the versions from `oldest` to `newest` in which we speak it.

    `name`: as Kafka writes it. `flexible`: the first version with compact lengths and tagged
    fields (KIP-482), None: there is none. `listed`: the oldest version that ApiVersions names, when
    it is another one: old clients look for it, and use newer ones.
    """

    key: ApiKey | InnerKey
    name: str
    oldest: int
    newest: int
    flexible: int | None
    request: type[Message]
    response: type[Message]
    listed: int | None = None

    @property
    def advertised(self) -> tuple[int, int]:
        """The range that ApiVersions names."""
        return (self.oldest if self.listed is None else self.listed, self.newest)

    def speaks(self, version: int) -> bool:
        """Say whether we speak this version."""
        return self.oldest <= version <= self.newest

    def is_flexible(self, version: int) -> bool:
        """Say whether this version has compact lengths and tagged fields."""
        return self.flexible is not None and version >= self.flexible


def _api(  # noqa: PLR0917
    key: ApiKey | InnerKey,
    oldest: int,
    newest: int,
    flexible: int | None,
    area: ModuleType,
    name: str,
    listed: int | None = None,
) -> Api:
    request, response = getattr(area, f"{name}Request"), getattr(area, f"{name}Response")
    return Api(key, name, oldest, newest, flexible, request, response, listed)


APIS: Final[Mapping[int, Api]] = {
    api.key: api
    for api in (
        _api(ApiKey.PRODUCE, 3, 11, 9, produce, "Produce", listed=0),
        _api(ApiKey.FETCH, 4, 17, 12, fetch, "Fetch"),
        _api(ApiKey.LIST_OFFSETS, 1, 8, 6, offsets, "ListOffsets"),
        _api(ApiKey.METADATA, 0, 13, 9, metadata, "Metadata"),
        _api(ApiKey.OFFSET_COMMIT, 2, 9, 8, group_offsets, "OffsetCommit"),
        _api(ApiKey.OFFSET_FETCH, 1, 9, 6, group_offsets, "OffsetFetch"),
        _api(ApiKey.FIND_COORDINATOR, 0, 5, 3, metadata, "FindCoordinator"),
        _api(ApiKey.JOIN_GROUP, 0, 9, 6, groups, "JoinGroup"),
        _api(ApiKey.HEARTBEAT, 0, 4, 4, groups, "Heartbeat"),
        _api(ApiKey.LEAVE_GROUP, 0, 5, 4, groups, "LeaveGroup"),
        _api(ApiKey.SYNC_GROUP, 0, 5, 4, groups, "SyncGroup"),
        _api(ApiKey.DESCRIBE_GROUPS, 0, 6, 5, group_listing, "DescribeGroups"),
        _api(ApiKey.LIST_GROUPS, 0, 5, 3, group_listing, "ListGroups"),
        _api(ApiKey.SASL_HANDSHAKE, 0, 1, None, connection, "SaslHandshake"),
        _api(ApiKey.API_VERSIONS, 0, 4, 3, connection, "ApiVersions"),
        _api(ApiKey.CREATE_TOPICS, 2, 7, 5, topics, "CreateTopics"),
        _api(ApiKey.DELETE_TOPICS, 1, 6, 4, topics, "DeleteTopics"),
        _api(ApiKey.DELETE_RECORDS, 0, 2, 2, offsets, "DeleteRecords"),
        _api(ApiKey.INIT_PRODUCER_ID, 0, 5, 2, transactions, "InitProducerId"),
        _api(ApiKey.OFFSET_FOR_LEADER_EPOCH, 2, 4, 4, offsets, "OffsetForLeaderEpoch"),
        _api(ApiKey.ADD_PARTITIONS_TO_TXN, 0, 3, 3, transactions, "AddPartitionsToTxn"),
        _api(ApiKey.ADD_OFFSETS_TO_TXN, 0, 4, 3, transactions, "AddOffsetsToTxn"),
        _api(ApiKey.END_TXN, 0, 4, 3, transactions, "EndTxn"),
        _api(ApiKey.TXN_OFFSET_COMMIT, 0, 4, 3, transactions, "TxnOffsetCommit"),
        _api(ApiKey.DESCRIBE_ACLS, 1, 3, 2, acls, "DescribeAcls"),
        _api(ApiKey.CREATE_ACLS, 1, 3, 2, acls, "CreateAcls"),
        _api(ApiKey.DELETE_ACLS, 1, 3, 2, acls, "DeleteAcls"),
        _api(ApiKey.DESCRIBE_CONFIGS, 1, 4, 4, configs, "DescribeConfigs"),
        _api(ApiKey.ALTER_CONFIGS, 0, 2, 2, configs, "AlterConfigs"),
        _api(ApiKey.DESCRIBE_LOG_DIRS, 1, 4, 2, placement, "DescribeLogDirs"),
        _api(ApiKey.SASL_AUTHENTICATE, 0, 2, 2, connection, "SaslAuthenticate"),
        _api(ApiKey.CREATE_PARTITIONS, 0, 3, 2, topics, "CreatePartitions"),
        _api(ApiKey.DELETE_GROUPS, 0, 2, 2, group_listing, "DeleteGroups"),
        _api(ApiKey.ELECT_LEADERS, 0, 2, 2, placement, "ElectLeaders"),
        _api(ApiKey.INCREMENTAL_ALTER_CONFIGS, 0, 1, 1, configs, "IncrementalAlterConfigs"),
        _api(ApiKey.LIST_PARTITION_REASSIGNMENTS, 0, 0, 0, placement, "ListPartitionReassignments"),
        _api(ApiKey.OFFSET_DELETE, 0, 0, None, group_offsets, "OffsetDelete"),
        _api(ApiKey.DESCRIBE_CLIENT_QUOTAS, 0, 1, 1, quotas, "DescribeClientQuotas"),
        _api(ApiKey.ALTER_CLIENT_QUOTAS, 0, 1, 1, quotas, "AlterClientQuotas"),
        _api(
            ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, 0, 0, 0, scram, "DescribeUserScramCredentials"
        ),
        _api(ApiKey.ALTER_USER_SCRAM_CREDENTIALS, 0, 0, 0, scram, "AlterUserScramCredentials"),
        _api(ApiKey.DESCRIBE_CLUSTER, 0, 2, 0, metadata, "DescribeCluster"),
        _api(ApiKey.DESCRIBE_PRODUCERS, 0, 0, 0, transaction_listing, "DescribeProducers"),
        _api(ApiKey.DESCRIBE_TRANSACTIONS, 0, 0, 0, transaction_listing, "DescribeTransactions"),
        _api(ApiKey.LIST_TRANSACTIONS, 0, 1, 0, transaction_listing, "ListTransactions"),
        _api(ApiKey.CONSUMER_GROUP_HEARTBEAT, 0, 1, 0, consumer_groups, "ConsumerGroupHeartbeat"),
        _api(ApiKey.CONSUMER_GROUP_DESCRIBE, 0, 1, 0, consumer_groups, "ConsumerGroupDescribe"),
        _api(ApiKey.LIST_CONFIG_RESOURCES, 0, 1, 0, configs, "ListConfigResources"),
        _api(ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, 0, 0, metadata, "DescribeTopicPartitions"),
    )
}
"""All requests that are spoken here: oldest, newest and first flexible version of each."""

INNER: Final[Mapping[int, Api]] = {
    api.key: api
    for api in (
        _api(InnerKey.CHECK_TRANSACTION, 0, 0, None, inner, "CheckTransaction"),
        _api(InnerKey.SETTLE_OFFSETS, 0, 0, None, inner, "SettleOffsets"),
    )
}
"""What cores ask each other."""

SPOKEN: Final[Mapping[int, Api]] = {**APIS, **INNER}
"""All that is read and written."""
