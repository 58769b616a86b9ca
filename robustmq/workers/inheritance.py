"""What the supervisor makes before it forks, and the part of it that each child is given.

Endpoints are numbered here and nowhere else: workers 0 to n-1, the server, the meta process.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robustmq.config import Config
from robustmq.shm.doorbell import Doorbell
from robustmq.shm.ledger import Ledger
from robustmq.shm.region import Phase, Region

if TYPE_CHECKING:
    from robustmq.net.certificates import Certificates
    from robustmq.net.trust import Trust

MQTT_TCP = "mqtt_tcp"
HTTP = "http"
GRPC = "grpc"
PEER = "peer"


def server_endpoint(workers: int) -> int:
    """Return the endpoint of the server process on a node with so many workers."""
    return workers


def meta_endpoint(workers: int) -> int:
    """Return the endpoint of the meta process on a node with so many workers."""
    return workers + 1


def endpoint_count(workers: int) -> int:
    """Return how many endpoints a node with so many workers has."""
    return meta_endpoint(workers) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInheritance:
    """What every child is given; the server and the meta process get this and no more.

    `index` is the child's own endpoint, `workers` their number. `doorbells` has one entry per
    endpoint. `listeners` are bound sockets by name, this child's own; MQTT's are not listening
    yet, so that no client is taken before the shards have recovered: the child calls `listen()`
    when it is ready (once more after a restart does no harm). `addresses` says of every listener
    of the node where it is, "address:port" by its name. `supervisor_bell` wakes the supervisor.
    `reload` reads the configuration again, for SIGHUP; it raises ConfigError. `channels` are its
    ends of the administration (`net.channel`): the server process has one toward each worker, by
    endpoint, a worker one toward the server process. `meta_channels` are its ends toward the
    meta process, likewise: that has one toward every other process by endpoint, they have one.
    `ledger` has what the limits of the node count.

    A child writes time.monotonic_ns() to `heartbeat_ns` of its state at least four times per
    `runtime.heartbeat_timeout_ms` as long as it lives, in recovery and drain too; until its first
    beat it may be without any work for `runtime.start_timeout_ms`.
    """

    config: Config
    index: int
    workers: int
    region: Region
    doorbells: tuple[Doorbell, ...]
    listeners: dict[str, socket.socket]
    addresses: dict[str, str]
    supervisor_bell: Doorbell
    reload: Callable[[], Config]
    channels: tuple[socket.socket, ...]
    meta_channels: tuple[socket.socket, ...]
    ledger: Ledger

    def enter(self, phase: Phase) -> None:
        """Publish this process's phase and wake the supervisor, which waits for READY."""
        self.region.state(self.index).phase = phase
        self.supervisor_bell.ring()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inheritance(ServerInheritance):
    """What a worker is given: the fabric, its listeners, certificates, and doors for sockets.

    `handover_in` is this worker's receiving end and `handover_out` the sending end toward each
    worker, by endpoint: nonblocking unix datagram sockets for SCM_RIGHTS, shared by all senders.
    They outlive a restart: what was sent to a worker that died waits for its successor.
    `secret` is the same for all workers and their lives, and known to nobody else. `trust` is
    what the nodes of the cluster know each other by, None for a node alone.
    """

    certificates: "Certificates | None"
    handover_in: socket.socket
    handover_out: tuple[socket.socket, ...]
    secret: bytes
    trust: "Trust | None"
