"""Who leads a partition, as the way to it: the core's number, looked up once for all."""

from robustmq.broker.catalog_api import Catalog
from robustmq.broker.partition_api import Fault, Partition
from robustmq.broker.placement import Placement
from robustmq.message.core_number import FIRST_REMOTE


class Ways:
    """The cores that lead partitions; `version` is that of the catalog by which they are known."""

    def __init__(self, catalog: Catalog, placement: Placement) -> None:
        self.version = catalog.version
        self._catalog = catalog
        self._placement = placement
        self._cores: dict[Partition, int] = {}

    def look(self) -> None:
        """Forget who leads what when the catalog is another; to be called before `core_of`."""
        version = self._catalog.version
        if version != self.version:
            self.version = version
            self._cores.clear()

    def core_of(self, partition: Partition, *, anywhere: bool = False) -> tuple[int, int]:
        """The core that leads a partition, and 0; else the fault in the second place.

        What clients ask is asked only of cores of this node unless `anywhere`.
        """
        core = self._cores.get(partition)
        if core is not None:
            return core, 0
        core = self._catalog.core_of(partition)
        if core is not None and (core < FIRST_REMOTE or anywhere):
            if not self._placement.is_live(core):
                return core, Fault.UNAVAILABLE
            if core < FIRST_REMOTE:
                self._cores[partition] = core
            return core, 0
        topic = self._catalog.of(partition.topic)
        if topic is None or not 0 <= partition.number < topic.partitions:
            return 0, Fault.UNKNOWN
        return 0, Fault.NOT_LEADER
