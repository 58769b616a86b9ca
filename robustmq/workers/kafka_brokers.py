"""The nodes of the cluster as brokers of Kafka: their numbers, and where clients reach them."""

from collections.abc import Mapping, Sequence
from typing import Final

from robustmq.broker.placement import Placement
from robustmq.config import Config
from robustmq.kafka.protocol import Endpoint
from robustmq.message.core_number import FIRST_REMOTE, INDEX_BITS, global_core, index_of, node_of
from robustmq.meta.image import Image
from robustmq.workers.listeners import kafka_host, kafka_ports

_UNNAMED: Final = "robustmq"


class Brokers:
    """A `protocol.Cluster`: what the image and the placement say, as clients of Kafka see it."""

    def __init__(
        self, config: Config, addresses: Mapping[str, str], placement: Placement, image: Image
    ) -> None:
        self.node = config.broker_id
        self._of_cores = config.kafka_runtime.advertise == "core"
        self._host = kafka_host(config)
        self._ports = kafka_ports(addresses, placement.workers)
        self._placement = placement
        self._image = image

    @property
    def id(self) -> str:
        """The id of the cluster."""
        cluster = self._image.cluster
        return cluster.id if cluster is not None else _UNNAMED

    @property
    def lives(self) -> int:
        """See `protocol.Cluster`."""
        return self._placement.digest

    def coordinator_of(self, key: str) -> tuple[int, int] | None:
        """See `protocol.Cluster`."""
        if not self._placement.is_known:
            return None
        core = self._placement.group_core(key.encode())
        return (self.node, core) if core < FIRST_REMOTE else (node_of(core), index_of(core))

    def brokers(self, listener: str) -> Sequence[Endpoint]:
        """See `protocol.Cluster`."""
        found: list[Endpoint] = []
        for number in sorted({self.node, *self._placement.nodes}):
            node = self._image.nodes.get(number)
            host, ports = self._host, self._ports
            if number != self.node and node is not None:
                host, ports = node.kafka_host, node.kafka_ports
            found += self._endpoints(number, host, ports.get(listener, ()))
        return found

    def _endpoints(self, node: int, host: str, ports: Sequence[int]) -> list[Endpoint]:
        """A node without a listener of this kind is no broker to its clients."""
        if not ports:
            return []
        if len(ports) == 1 or not self._of_cores:
            return [Endpoint(self.broker_id(node, 0), host, ports[0])]
        return [
            Endpoint(self.broker_id(node, core), host, port) for core, port in enumerate(ports[1:])
        ]

    def broker_id(self, node: int, core: int) -> int:
        """See `protocol.Cluster`."""
        return node << INDEX_BITS | core if self._of_cores else node

    def number_of(self, node: int, core: int) -> int:
        """See `protocol.Cluster`."""
        return core if node == self.node else global_core(node, core)
