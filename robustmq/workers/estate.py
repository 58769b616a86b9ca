"""All that exists before the first fork and outlives every child: memory, bells and sockets."""

import errno
import ipaddress
import itertools
import os
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from robustmq.config import Config
from robustmq.errors import ConfigError
from robustmq.net import channel, quic_steering
from robustmq.policy.limit_names import ledger_names
from robustmq.settings.place import GRPC_PORT, split_address
from robustmq.shm.doorbell import Doorbell
from robustmq.shm.ledger import Ledger
from robustmq.shm.region import Region
from robustmq.workers.bearers import read_bearers
from robustmq.workers.inheritance import (
    GRPC,
    HTTP,
    PEER,
    Inheritance,
    ServerInheritance,
    endpoint_count,
    meta_endpoint,
    server_endpoint,
)
from robustmq.workers.limits import StartError, ring_bytes
from robustmq.workers.listeners import UNIX, Listener, configured, port, port_key
from robustmq.workers.unix_socket import UnixSocket

if TYPE_CHECKING:
    from robustmq.net.certificates import Certificates
    from robustmq.net.trust import Trust

HANDOVER_BUFFER_BYTES: Final = 1 << 20
HTTP_BACKLOG: Final = 128
SECRET_BYTES: Final = 32

_PORT_MAX: Final = 65_535


class Estate:
    """Made once by the supervisor, which keeps everything open so that restarts find it again.

    Raises StartError when a port is taken, a certificate cannot be used, or the machine refuses
    the memory or the descriptors.
    """

    def __init__(self, config: Config, workers: int, reload: Callable[[], Config]) -> None:
        self._config = config
        self._reload = reload
        self.workers = workers
        count = endpoint_count(workers)
        size = ring_bytes(config, count)
        try:
            self.region = Region.create(count, size)
        except OSError as error:
            raise StartError(
                f"{count * count} rings of {size} bytes cannot be mapped: {error.strerror}; "
                "lower runtime.ring_bytes or the number of workers"
            ) from error
        self.doorbells = tuple(Doorbell.create() for _ in range(count))
        self.bell = Doorbell.create()
        self._certificates = _certificates(config)
        _check_bearers(config)
        self._http = _bind_alone(config.broker_ip, config.http_port, "http_port")
        self._http.listen(HTTP_BACKLOG)
        self._listeners = {
            listener.address_name: _bind_listener(config, listener, workers)
            for listener in configured(config)
        }
        self._trust: Trust | None = None
        if config.meta_addrs:
            self._trust = _trust(config)
            self._listeners[GRPC] = [_bind_grpc(config)]
        if config.meta_addrs and workers:
            self._listeners[PEER] = _bind_shared(
                config.place.bind_ip,
                config.cluster.peer_port,
                "cluster.peer_port",
                workers,
                socket.SOCK_STREAM,
            )
        server = config.mqtt_runtime.server
        unix = server.unix_path and "broker" in config.roles
        self._unix = UnixSocket(server.unix_path, server.unix_mode) if unix else None
        if self._unix is not None:
            self._listeners[UNIX.address_name] = [self._unix.listener] * workers
        self._addresses = self._named(configured(config))
        self._handover = [_handover_pair() for _ in range(workers)]
        self._secret = os.urandom(SECRET_BYTES)
        _steer_datagrams(self._listeners.values())
        self._channels = [channel.pair() for _ in range(workers)]
        self._meta_channels = [channel.pair() for _ in range(meta_endpoint(workers))]
        self._ledger = Ledger(max(workers, 1), ledger_names(config), os.urandom(16))

    def _named(self, listeners: Iterable[Listener]) -> dict[str, str]:
        """Say where everything listens; where each core has a port, of each core."""
        of_core = {each.address_name: each for each in listeners if each.of_core}
        shown = {HTTP: self._http}
        for name, group in self._listeners.items():
            if name in of_core:
                names = map(of_core[name].core_address_name, range(len(group)))
                shown.update(zip(names, group, strict=True))
            else:
                shown[name] = group[0]
        return {name: _address(sock) for name, sock in shown.items()}

    def addresses(self) -> dict[str, str]:
        """Return what listens where, "address:port" by the listener's name."""
        return dict(self._addresses)

    def of_worker(self, config: Config, index: int) -> Inheritance:
        """Return what worker `index` inherits."""
        return Inheritance(
            config=config,
            index=index,
            workers=self.workers,
            region=self.region,
            doorbells=self.doorbells,
            listeners={
                name: group[index] for name, group in self._listeners.items() if name != GRPC
            },
            addresses=self.addresses(),
            supervisor_bell=self.bell,
            reload=self._reload,
            ledger=self._ledger,
            channels=(self._channels[index][1],),
            meta_channels=(self._meta_channels[index][1],),
            certificates=self._certificates,
            handover_in=self._handover[index][0],
            handover_out=tuple(sender for _, sender in self._handover),
            secret=self._secret,
            trust=self._trust,
        )

    def of_server(self, config: Config) -> ServerInheritance:
        """Return what the server process inherits."""
        index = server_endpoint(self.workers)
        return ServerInheritance(
            config=config,
            index=index,
            workers=self.workers,
            region=self.region,
            doorbells=self.doorbells,
            listeners={HTTP: self._http},
            addresses=self.addresses(),
            supervisor_bell=self.bell,
            reload=self._reload,
            ledger=self._ledger,
            channels=tuple(ours for ours, _ in self._channels),
            meta_channels=(self._meta_channels[index][1],),
        )

    def of_meta(self, config: Config) -> ServerInheritance:
        """Return what the meta process inherits; without a cluster it has no listener."""
        return ServerInheritance(
            config=config,
            index=meta_endpoint(self.workers),
            workers=self.workers,
            region=self.region,
            doorbells=self.doorbells,
            listeners={name: self._listeners[name][0] for name in (GRPC,) if config.meta_addrs},
            addresses=self.addresses(),
            supervisor_bell=self.bell,
            reload=self._reload,
            ledger=self._ledger,
            channels=(),
            meta_channels=tuple(ours for ours, _ in self._meta_channels),
        )

    def close_all_but(self, kept: ServerInheritance) -> None:
        """Close, in a child, the sockets that belong to other processes."""
        for name, group in {**self._listeners, HTTP: [self._http]}.items():
            for listener in group:
                if listener is not kept.listeners.get(name):
                    listener.close()
        for receiver, sender in self._handover:
            if not isinstance(kept, Inheritance):
                sender.close()
            if not isinstance(kept, Inheritance) or receiver is not kept.handover_in:
                receiver.close()
        for end in itertools.chain.from_iterable((*self._channels, *self._meta_channels)):
            if end not in kept.channels and end not in kept.meta_channels:
                end.close()

    def close_protocol_listeners(self) -> None:
        """Close the supervisor's copies, so that a port is shut once its workers have closed it.

        For the drain: without this the kernel would go on to take clients that nobody serves.
        """
        for name, group in self._listeners.items():
            for listener in group:
                if name != GRPC:
                    listener.close()

    def remove_files(self) -> None:
        """Remove what lies in the file system, when the node has ended."""
        if self._unix is not None:
            self._unix.remove()


def _certificates(config: Config) -> "Certificates | None":
    """Read the certificates, if there are any: without them no TLS is loaded before the fork."""
    if not config.mqtt_runtime.tls.tls_cert:
        return None
    from robustmq.net.certificates import Certificates  # noqa: PLC0415

    try:
        return Certificates(config.mqtt_runtime.tls)
    except ConfigError as error:
        raise StartError(str(error)) from error


def _check_bearers(config: Config) -> None:
    """See that the keys of tokens can be used, if there are any."""
    try:
        read_bearers(config, lambda: 0)
    except ConfigError as error:
        raise StartError(str(error)) from error


def _trust(config: Config) -> "Trust":
    """Read what the nodes of the cluster trust each other by."""
    from robustmq.net.trust import read_trust  # noqa: PLC0415

    try:
        trust = read_trust(config.cluster)
        trust.check_address(config.place.bind_ip, "cluster.peer_port")
    except ConfigError as error:
        raise StartError(str(error)) from error
    return trust


def _steer_datagrams(groups: Iterable[list[socket.socket]]) -> None:
    """Let each datagram of a connection reach the worker that owns it, from whatever address."""
    for group in groups:
        if group[0].type == socket.SOCK_DGRAM and len(group) > 1:
            try:
                quic_steering.attach(group[0], len(group))
            except OSError as error:
                raise StartError(
                    "this system cannot steer the datagrams of QUIC to several workers "
                    f"(SO_ATTACH_REUSEPORT_CBPF: {error.strerror}); take quic out of "
                    "mqtt_runtime.server.listeners, or run one worker"
                ) from error


def _bind_listener(config: Config, listener: Listener, workers: int) -> list[socket.socket]:
    """Bind the sockets of all workers: on one port, or on the ports behind it."""
    address, first, key = config.broker_ip, port(config, listener), port_key(config, listener)
    if not listener.of_core:
        return _bind_shared(address, first, key, workers, listener.transport)
    if first + workers > _PORT_MAX:
        raise StartError(
            f"each of the {workers} cores needs a port of its own above {first} ({key}), and "
            f"{_PORT_MAX} is the last one: lower it"
        )
    return [
        _bind_alone(address, first and first + 1 + core, f"{key} + {1 + core}")
        for core in range(workers)
    ]


def _bind_shared(
    address: str, port: int, key: str, count: int, kind: socket.SocketKind
) -> list[socket.socket]:
    """Bind one SO_REUSEPORT socket per worker, after seeing that no stranger has the port.

    SO_REUSEPORT would let us share a port with another server of the same user unnoticed; a
    first bind without it is refused by the kernel as long as somebody listens there.
    """
    probe = _bind(address, port, key, kind, shared=False)
    port = probe.getsockname()[1]
    probe.close()
    return [_bind(address, port, key, kind, shared=True) for _ in range(count)]


def _bind_alone(address: str, port: int, key: str) -> socket.socket:
    return _bind(address, port, key, socket.SOCK_STREAM, shared=False)


def _bind(
    address: str, port: int, key: str, kind: socket.SocketKind, *, shared: bool
) -> socket.socket:
    version = ipaddress.ip_address(address).version
    sock = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, kind)
    if kind == socket.SOCK_STREAM:
        # On UDP it would let a stranger share the port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setblocking(False)
    try:
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        reason = (
            "it is in use" if error.errno == errno.EADDRINUSE else os.strerror(error.errno or 0)
        )
        raise StartError(f"cannot listen on {address}:{port} ({key}): {reason}") from error
    return sock


def _bind_grpc(config: Config) -> socket.socket:
    own = config.place.own
    port = config.grpc_port or (split_address(own)[1] if own else GRPC_PORT)
    return _bind_alone(config.place.bind_ip, port, "grpc_port")


def _handover_pair() -> tuple[socket.socket, socket.socket]:
    receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in (receiver, sender):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, HANDOVER_BUFFER_BYTES)
    return receiver, sender


def _address(sock: socket.socket) -> str:
    if sock.family == socket.AF_UNIX:
        return str(sock.getsockname())
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
