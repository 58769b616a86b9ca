"""The listeners of all protocols by name: which port, over what, and when they are open."""

import ipaddress
import socket
from collections.abc import Mapping
from typing import Final, NamedTuple

from robustmq.config import Config
from robustmq.settings.place import split_address


class Listener(NamedTuple):
    """A kind of listener.

    `name` is what `Peer.listener` says, `key` the configured port in the section of the
    `protocol`, `layers` the steps between its sockets and the protocol, the lowest first; without
    any, the socket itself goes to the client's home core, or stays where it is. `transport` is
    the kind of socket. `needs_certificate`: it is open only when there is one; unless it
    `can_verify` those of clients, it is not open where they are required. `of_core`: each core
    has a port of its own, above the one that `key` says.
    """

    name: str
    key: str
    layers: tuple[str, ...] = ()
    transport: socket.SocketKind = socket.SOCK_STREAM
    needs_certificate: bool = False
    can_verify: bool = True
    protocol: str = "mqtt"
    of_core: bool = False

    @property
    def address_name(self) -> str:
        """The name under which its address is announced: "mqtt_tcp", "kafka_tcp_core"."""
        name = self.name if self.protocol != "mqtt" else f"mqtt_{self.name}"
        return f"{name}_core" if self.of_core else name

    def core_address_name(self, core: int) -> str:
        """The name of the address of one core's port, where each has its own."""
        return f"{self.address_name}_{core}"


LISTENERS: Final[tuple[Listener, ...]] = (
    Listener("tcp", "tcp_port"),
    Listener("tls", "tls_port", ("tls",), needs_certificate=True),
    Listener("ws", "websocket_port", ("websocket",)),
    Listener("wss", "websockets_port", ("tls", "websocket"), needs_certificate=True),
    Listener("quic", "quic_port", (), socket.SOCK_DGRAM, True, can_verify=False),
    Listener("kafka_tcp", "tcp_port", protocol="kafka"),
    Listener("kafka_tls", "tls_port", ("tls",), needs_certificate=True, protocol="kafka"),
    Listener("kafka_tcp", "tcp_port", protocol="kafka", of_core=True),
    Listener(
        "kafka_tls", "tls_port", ("tls",), needs_certificate=True, protocol="kafka", of_core=True
    ),
)
"""Every listener that there is; a new one is a line here and its layers in `reception`."""


class Section(NamedTuple):
    """What the configuration says of a protocol's listeners: where, and which are wanted."""

    settings: object
    key: str
    wanted: frozenset[str]
    has_core_ports: bool = False


def section(config: Config, protocol: str) -> Section:
    """Return where the listeners of a protocol are configured."""
    server, kafka = config.mqtt_runtime.server, config.kafka_runtime
    if protocol == "mqtt":
        return Section(server, "mqtt_runtime.server", frozenset(server.listeners))
    wanted = frozenset(f"kafka_{name}" for name in kafka.listeners)
    return Section(kafka, "kafka_runtime", wanted, kafka.advertise == "core")


def configured(config: Config) -> tuple[Listener, ...]:
    """Return the listeners that this configuration opens."""
    if "broker" not in config.roles:
        return ()
    return tuple(listener for listener in LISTENERS if _is_wanted(config, listener))


def _is_wanted(config: Config, listener: Listener) -> bool:
    where, tls = section(config, listener.protocol), config.mqtt_runtime.tls
    return (
        listener.name in where.wanted
        and (where.has_core_ports or not listener.of_core)
        and bool(tls.tls_cert or not listener.needs_certificate)
        and (listener.can_verify or tls.verify != "required")
    )


def port(config: Config, listener: Listener) -> int:
    """Return the configured port of a listener; 0: any."""
    return int(getattr(section(config, listener.protocol).settings, listener.key))


def port_key(config: Config, listener: Listener) -> str:
    """Return the key that says the port, as an administrator writes it."""
    return f"{section(config, listener.protocol).key}.{listener.key}"


UNIX: Final = Listener("unix", "unix_path")
"""The Unix socket; it has a path for a port, and one socket for all workers."""


def kafka_host(config: Config) -> str:
    """Return the name or address by which clients of Kafka reach this node."""
    if config.kafka_runtime.advertised_host:
        return config.kafka_runtime.advertised_host
    host = config.place.advertised_host if config.meta_addrs else config.broker_ip
    try:
        is_everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        is_everywhere = False
    return socket.gethostname() if is_everywhere else host


def kafka_ports(addresses: Mapping[str, str], workers: int) -> dict[str, tuple[int, ...]]:
    """Return the ports of Kafka by listener: the common one, then those of each core."""
    ports: dict[str, tuple[int, ...]] = {}
    for listener in LISTENERS:
        if listener.protocol != "kafka":
            continue
        names = [listener.address_name]
        if listener.of_core:
            names = [listener.core_address_name(core) for core in range(workers)]
        found = tuple(split_address(addresses[name])[1] for name in names if name in addresses)
        if found:
            ports[listener.name] = ports.get(listener.name, ()) + found
    return ports
