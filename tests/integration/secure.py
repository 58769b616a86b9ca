"""MQTT over TLS: the settings of a node that has certificates, and clients that speak it."""

import socket
import ssl
from pathlib import Path
from typing import Final

from robustmq.mqtt.packets import Properties
from tests.integration.supervised import Node
from tests.integration.wire_client import Client, Wire

VERSIONS: Final = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


def settings(directory: Path, *names: str, **more: str) -> list[str]:
    """Return the settings of a node with these certificates; `more` are keys of its section."""
    section = "mqtt_runtime.tls"
    certs = [str(directory / f"{name}.pem") for name in names or ("server",)]
    keys = [str(directory / f"{name}.key") for name in names or ("server",)]
    lists = [f'{section}.tls_cert=["{_joined(certs)}"]', f'{section}.tls_key=["{_joined(keys)}"]']
    return [*lists, *(f'{section}.{key}="{value}"' for key, value in more.items())]


def _joined(files: list[str]) -> str:
    return '", "'.join(files)


def context(
    directory: Path,
    identity: str = "",
    *,
    version: ssl.TLSVersion | None = None,
    authority: str = "ca",
) -> ssl.SSLContext:
    """Return what a client knows: its authority, its own certificate, and one version of TLS."""
    made = ssl.create_default_context(cafile=str(directory / f"{authority}.pem"))
    if identity:
        made.load_cert_chain(directory / f"{identity}.pem", directory / f"{identity}.key")
    if version is not None:
        made.minimum_version = made.maximum_version = version
    return made


def connect(
    node: Node,
    tls: ssl.SSLContext,
    *,
    name: str = "localhost",
    session: ssl.SSLSession | None = None,
    receive_buffer: int = 0,
    listener: str = "mqtt_tls",
) -> ssl.SSLSocket:
    """Return a socket whose handshake is done."""
    plain = socket.socket()
    if receive_buffer:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    plain.settimeout(20)
    plain.connect(node.address(listener))
    return tls.wrap_socket(plain, server_hostname=name, session=session)


class TlsWire(Wire):
    """A connection over TLS."""

    def __init__(self, node: Node, tls: ssl.SSLContext) -> None:
        self._tls = tls
        super().__init__(node)

    def opened(self, node: Node, receive_buffer: int) -> socket.socket:
        """Return a socket whose handshake is done."""
        return connect(node, self._tls, receive_buffer=receive_buffer)


class TlsClient(Client):
    """A client over TLS."""

    def __init__(
        self,
        node: Node,
        tls: ssl.SSLContext,
        client_id: str,
        *,
        clean: bool = True,
        properties: Properties | None = None,
        receive_buffer: int = 0,
    ) -> None:
        self._tls = tls
        super().__init__(
            node, client_id, clean=clean, properties=properties, receive_buffer=receive_buffer
        )

    def opened(self, node: Node, receive_buffer: int) -> socket.socket:
        """Return a socket whose handshake is done."""
        return connect(node, self._tls, receive_buffer=receive_buffer)
