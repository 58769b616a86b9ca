"""The configuration of what differs between the doors of MQTT: `[mqtt_runtime.listener.<name>]`."""

from typing import Annotated, Final

from msgspec import Meta, Struct, field

from robustmq.settings.bounds import TIB, between

TENANT_PATTERN = r"^[A-Za-z0-9_.\-]{0,128}$"


class MqttListener(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.listener.<name>]`: What holds for the clients of one listener.

    max_keep_alive: Seconds; an MQTT 5 client that asks for more, or for none, is told this
        instead; 0: mqtt_runtime.keep_alive.max_time.
    tenant: The tenant of clients that name none themselves, at most 128 letters, digits, _, . and
        -; "": default.
    max_connections: Clients that are connected at once; one more is refused (0x97); 0: no limit.
    max_connection_rate: Clients that connect in a second; one more is refused (0x9F); 0: no limit.
    max_publish_rate: Messages in a second that all of them together publish; those who publish
        more are read more slowly; 0: no limit.
    max_publish_bytes: Bytes of their PUBLISH packets in a second, likewise; 0: no limit.
    """

    max_keep_alive: Annotated[int, between(0, 65_535)] = 0
    tenant: Annotated[str, Meta(pattern=TENANT_PATTERN)] = ""
    max_connections: Annotated[int, between(0, 1_000_000_000)] = 0
    max_connection_rate: Annotated[int, between(0, 10_000_000)] = 0
    max_publish_rate: Annotated[int, between(0, 1_000_000_000)] = 0
    max_publish_bytes: Annotated[int, between(0, TIB)] = 0


_DEFAULT: Final = MqttListener()


class MqttListeners(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.listener]`: One section for each listener, by its name."""

    tcp: MqttListener = field(default_factory=MqttListener)
    tls: MqttListener = field(default_factory=MqttListener)
    ws: MqttListener = field(default_factory=MqttListener)
    wss: MqttListener = field(default_factory=MqttListener)
    quic: MqttListener = field(default_factory=MqttListener)
    unix: MqttListener = field(default_factory=MqttListener)

    def named(self, name: str) -> MqttListener:
        """The options of a listener, by `Peer.listener`; bridges have the defaults."""
        options: MqttListener = getattr(self, name, _DEFAULT)
        return options
