"""DescribeCluster, and what is asked of the replicas of partitions: each has one."""

from collections.abc import Iterable

from robustmq.broker.catalog_api import Topic
from robustmq.broker.partition_api import Partition
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.metadata import (
    DescribeClusterBroker,
    DescribeClusterRequest,
    DescribeClusterResponse,
)
from robustmq.kafka.messages.placement import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
    PartitionResult,
    ReplicaElectionResult,
)
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation, Resource

_BROKERS = 1
_CONTROLLERS = 2


class Cluster:
    """The handlers of DescribeCluster 0-2, ElectLeaders 0-2, ListPartitionReassignments 0."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    def describe_cluster(self, call: Call[DescribeClusterRequest]) -> None:
        """Describe the brokers."""
        kind = call.request.endpoint_type
        if kind != _BROKERS:
            known = kind == _CONTROLLERS
            error = (
                ErrorCode.MISMATCHED_ENDPOINT_TYPE if known else ErrorCode.UNSUPPORTED_ENDPOINT_TYPE
            )
            sentence = "only brokers (endpoint type 1) are told of here"
            call.answer(
                DescribeClusterResponse(
                    error_code=error, error_message=sentence, endpoint_type=kind
                )
            )
            return
        kafka = self._kafka
        brokers = kafka.cluster.brokers(call.listener)
        response = DescribeClusterResponse(
            cluster_id=kafka.cluster.id,
            controller_id=min((each.broker_id for each in brokers), default=-1),
            brokers=[
                DescribeClusterBroker(broker_id=each.broker_id, host=each.host, port=each.port)
                for each in brokers
            ],
        )
        if call.request.include_cluster_authorized_operations:
            granted = kafka.granted(call.principal, Resource.CLUSTER)
            response.cluster_authorized_operations = granted
        call.answer(response)

    def elect_leaders(self, call: Call[ElectLeadersRequest]) -> None:
        """Say of each partition that there is no election: its one replica leads, or is away."""
        if not self._kafka.may(call.principal, Operation.ALTER, Resource.CLUSTER):
            error = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
            call.answer(ElectLeadersResponse(error_code=error))
            return
        results = []
        for asked in call.request.topic_partitions or []:
            topic = self._kafka.catalog.find(call.principal.tenant, asked.topic)
            elected = [*self._elected(topic, asked.partitions)]
            results.append(ReplicaElectionResult(topic=asked.topic, partition_result=elected))
        call.answer(ElectLeadersResponse(replica_election_results=results))

    def _elected(self, topic: Topic | None, numbers: Iterable[int]) -> Iterable[PartitionResult]:
        for number in numbers:
            if topic is None or not 0 <= number < topic.partitions:
                error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                sentence = "there is no such partition"
            elif self._kafka.catalog.leader(Partition(topic.name, number)) is None:
                error = ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE
                sentence = "the node that has the partition is not live: start it again"
            else:
                error = ErrorCode.ELECTION_NOT_NEEDED
                sentence = "the partition has its leader"
            yield PartitionResult(partition_id=number, error_code=error, error_message=sentence)

    def list_partition_reassignments(self, call: Call[ListPartitionReassignmentsRequest]) -> None:
        """Say that no partition moves: a replica stays where it is."""
        response = ListPartitionReassignmentsResponse(error_message=None, topics=[])
        if not self._kafka.may(call.principal, Operation.DESCRIBE, Resource.CLUSTER):
            response.error_code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        call.answer(response)
