"""The listeners of MQTT by name: which port, over what, and when they are open."""

import socket
from typing import Final, NamedTuple

from robustmq.config import Config


class Listener(NamedTuple):
    """A kind of listener.

    `name` is what `Peer.listener` and the configuration say, `key` the configured port of
    `[mqtt_runtime.server]`, `layers` the steps between its sockets and MQTT, the lowest first;
    without any, the socket itself goes to the client's home core. `transport` is the kind of
    socket. `needs_certificate`: it is open only when there is one; unless it `can_verify` those of
    clients, it is not open where they are required.
    """

    name: str
    key: str
    layers: tuple[str, ...] = ()
    transport: socket.SocketKind = socket.SOCK_STREAM
    needs_certificate: bool = False
    can_verify: bool = True

    @property
    def address_name(self) -> str:
        """The name under which its address is announced: "mqtt_tcp"."""
        return f"mqtt_{self.name}"


LISTENERS: Final[tuple[Listener, ...]] = (
    Listener("tcp", "tcp_port"),
    Listener("tls", "tls_port", ("tls",), needs_certificate=True),
    Listener("ws", "websocket_port", ("websocket",)),
    Listener("wss", "websockets_port", ("tls", "websocket"), needs_certificate=True),
    Listener("quic", "quic_port", (), socket.SOCK_DGRAM, True, can_verify=False),
)
"""Every listener that there is; a new one is a line here and its layers in `reception`."""


def configured(config: Config) -> tuple[Listener, ...]:
    """Return the listeners that this configuration opens."""
    if "broker" not in config.roles:
        return ()
    names = config.mqtt_runtime.server.listeners
    tls = config.mqtt_runtime.tls
    return tuple(
        listener
        for listener in LISTENERS
        if listener.name in names
        and (tls.tls_cert or not listener.needs_certificate)
        and (listener.can_verify or tls.verify != "required")
    )


def port(config: Config, listener: Listener) -> int:
    """Return the configured port of a listener."""
    return int(getattr(config.mqtt_runtime.server, listener.key))


UNIX: Final = Listener("unix", "unix_path")
"""The Unix socket; it has a path for a port, and one socket for all workers."""
