"""The topics that requests name: found, and looked at whether their client may."""

from collections.abc import Iterable

from robustmq.broker.api import Principal
from robustmq.broker.catalog_api import Topic
from robustmq.broker.partition_api import Partition
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.leaders import LeaderIdAndEpoch, NodeEndpoint
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation, Resource
from robustmq.message.tenancy import local, tenant_of


def topic_of(
    kafka: Kafka, principal: Principal, operation: Operation, name: str
) -> Topic | ErrorCode:
    """Return the topic that a client means by a name, or why it gets none.

    Who may not do it does not learn either whether there is such a topic.
    """
    topic = kafka.catalog.find(principal.tenant, name)
    if topic is not None:
        name = local(topic.name).decode()
    if not kafka.may(principal, operation, Resource.TOPIC, name):
        return ErrorCode.TOPIC_AUTHORIZATION_FAILED
    return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if topic is None else topic


def topic_with_id(
    kafka: Kafka, principal: Principal, operation: Operation, topic_id: bytes
) -> Topic | ErrorCode:
    """As `topic_of`, by the topic's id; another tenant's is unknown."""
    topic = kafka.catalog.by_id(topic_id)
    if topic is None or tenant_of(topic.name) != principal.tenant:
        return ErrorCode.UNKNOWN_TOPIC_ID
    if not kafka.may(principal, operation, Resource.TOPIC, local(topic.name).decode()):
        return ErrorCode.TOPIC_AUTHORIZATION_FAILED
    return topic


def leader_of(kafka: Kafka, partition: Partition) -> LeaderIdAndEpoch:
    """Return who leads a partition now, for a client that has asked somebody else (KIP-951)."""
    leader = kafka.catalog.leader(partition)
    if leader is None:
        return LeaderIdAndEpoch()
    broker = kafka.cluster.broker_id(leader.node, leader.core)
    return LeaderIdAndEpoch(leader_id=broker, leader_epoch=leader.epoch)


def endpoints_of(
    kafka: Kafka, listener: str, leaders: Iterable[LeaderIdAndEpoch]
) -> list[NodeEndpoint]:
    """Return where these leaders are reached."""
    asked = {leader.leader_id for leader in leaders}
    return [
        NodeEndpoint(node_id=broker_id, host=host, port=port, rack=rack)
        for broker_id, host, port, rack in kafka.cluster.brokers(listener)
        if broker_id in asked
    ]
