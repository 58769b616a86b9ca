"""The configuration of bridges to other MQTT brokers.

What a type cannot say is checked where a row is made: it raises ValueError with the reason.
"""

from typing import Annotated, Final, Literal, NamedTuple, TypeAlias

from msgspec import Meta, Struct

from robustmq.settings.bounds import U32_MAX, between
from robustmq.settings.topics import wrong_filter

Direction: TypeAlias = Literal["out", "in", "both"]

_DIRECTIONS: Final[tuple[Direction, ...]] = ("out", "in", "both")
_DEFAULT_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_WORDS_MAX: Final = 5
_QOS: Final = ("0", "1", "2")


class BridgedTopics(NamedTuple):
    """What a bridge takes from one broker to the other.

    `local` and `remote` stand before `pattern` on this side and on the other.
    """

    pattern: str
    direction: Direction
    qos: int
    local: str
    remote: str


class Endpoint(NamedTuple):
    """Where the other broker listens."""

    host: str
    port: int
    is_tls: bool


class MqttBridge(Struct, frozen=True, kw_only=True):
    """`[[mqtt_runtime.bridges]]`: Connections to other MQTT brokers, one table for each.

    A bridge is a client of the other broker, and one here. What goes out waits on disk while the
    other side is away, within the limits of [mqtt_runtime.inbox]; what comes in is acknowledged
    there when it is kept here.

    name: The bridge's name, unique on this node; its session here is that of $bridge/<name>.
    address: mqtt://host:port or mqtts://host:port (TLS).
    topics: What is bridged, each "pattern direction qos local-prefix remote-prefix" as in
        mosquitto: direction out, in or both; a prefix stands before the pattern on its side, and
        is written "" when only the other has one. All but the pattern may be left out.
    client_id: The identifier over there; "": robustmq-<name>.
    username: The user name over there; "": none.
    password: The password over there.
    protocol_version: 5, or 4 for MQTT 3.1.1, which carries no properties.
    bridge_bit: With version 4, say that this is a bridge, as mosquitto does; a broker that does not
        understand is asked again without.
    clean_start: Begin anew at each connection: what the other side kept meanwhile is lost.
    session_expiry_interval: Seconds that the other side keeps what is for us while we are away.
    keep_alive: Seconds of silence after which the connection is probed.
    receive_max: Messages of QoS 1 and 2 unacknowledged toward a broker of version 4; mosquitto
        ends connections that have more than 20.
    max_hops: Nodes that a message may have passed over bridges of version 5.
    connect_timeout_ms: Milliseconds from the first try to the other side's CONNACK.
    reconnect_min_ms: Milliseconds until a lost connection is tried again; doubled each time.
    reconnect_max_ms: Milliseconds that this wait never exceeds.
    tls_ca: File with the certificates that the other side's must come from; "": the system's.
    tls_cert: File with our certificate for the other side; "": none.
    tls_key: File with its key; "": it is in tls_cert.
    tls_name: The name that the other side's certificate must have; "": the host of the address.
    """

    name: Annotated[
        str, Meta(min_length=1, max_length=200, pattern=r"^[^+#/\x00]+$", examples=["hall"])
    ]
    address: Annotated[str, Meta(min_length=1, examples=["mqtt://broker.example:1883"])]
    topics: tuple[str, ...] = ("# both 1",)
    client_id: str = ""
    username: str = ""
    password: str = ""
    protocol_version: Literal[4, 5] = 5
    bridge_bit: bool = True
    clean_start: bool = False
    session_expiry_interval: Annotated[int, between(0, U32_MAX)] = 604_800
    keep_alive: Annotated[int, between(1, 65_535)] = 60
    receive_max: Annotated[int, between(1, 65_535)] = 20
    max_hops: Annotated[int, between(1, 255)] = 8
    connect_timeout_ms: Annotated[int, between(10, 600_000)] = 10_000
    reconnect_min_ms: Annotated[int, between(1, 3_600_000)] = 1_000
    reconnect_max_ms: Annotated[int, between(1, 3_600_000)] = 60_000
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_name: str = ""

    def __post_init__(self) -> None:
        endpoint_of(self.address)
        if not self.topics:
            raise ValueError("its topics are none: it would do nothing")
        for text in self.topics:
            bridged(text)
        if self.reconnect_max_ms < self.reconnect_min_ms:
            raise ValueError("its reconnect_max_ms is below its reconnect_min_ms")


def bridged(text: str) -> BridgedTopics:
    """Read a text of `topics`; ValueError says what is wrong with it."""
    words = text.split()
    if not 1 <= len(words) <= _WORDS_MAX:
        raise ValueError(
            f"{text!r} in its topics is not: pattern direction qos local-prefix remote-prefix"
        )
    defaults = ("", "out", "0", "", "")
    pattern, direction, qos, local, remote = (*words, *defaults[len(words) :])
    known = next((each for each in _DIRECTIONS if each == direction), None)
    if known is None:
        raise ValueError(f"the direction in {text!r} is not out, in or both")
    if qos not in _QOS:
        raise ValueError(f"the QoS in {text!r} is not 0, 1 or 2")
    topics = BridgedTopics(pattern, known, int(qos), _unquoted(local), _unquoted(remote))
    for prefix in (topics.local, topics.remote):
        if reason := wrong_filter(prefix + pattern):
            raise ValueError(f"a filter of {text!r} {reason}")
        if "+" in prefix or "#" in prefix:
            raise ValueError(f"a prefix of {text!r} has a wildcard")
    return topics


def endpoint_of(address: str) -> Endpoint:
    """Read an address; ValueError says what is wrong with it."""
    scheme, found, rest = address.partition("://")
    if not found:
        scheme, rest = "mqtt", address
    if scheme not in _DEFAULT_PORTS:
        raise ValueError("its address is neither mqtt://host:port nor mqtts://host:port")
    host, found, port = rest.rpartition(":")
    if not found or rest.endswith("]"):
        host, port = rest, str(_DEFAULT_PORTS[scheme])
    if not host or not port.isdecimal() or not 0 < int(port) <= 65_535:
        raise ValueError("its address has no host, or a port that is not 1 to 65535")
    return Endpoint(host.strip("[]"), int(port), scheme == "mqtts")


def _unquoted(word: str) -> str:
    return "" if word == '""' else word
