"""The configuration of MQTT: `[mqtt_runtime]` and its sections."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from robustmq.settings.bounds import CENTURY_MS, GIB, TIB, U32_MAX, between
from robustmq.settings.bridges import MqttBridge
from robustmq.settings.limits import MqttFlappingDetect, MqttLimit
from robustmq.settings.listener import MqttListeners
from robustmq.settings.quic import MqttQuic
from robustmq.settings.server import MqttServer
from robustmq.settings.takeover import MqttTakeover
from robustmq.settings.tls import MqttTls
from robustmq.settings.topics import AutoSubscribe, SharedGroup, Strategy, TopicRewrite
from robustmq.settings.users import MqttAuth
from robustmq.settings.watch import MqttEvents, MqttSlowSubscribe, MqttSystemMonitor


class MqttKeepAlive(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.keep_alive]`: How long a client may be silent (MQTT5 3.1.2.10).

    max_time: Seconds; an MQTT 5 client that asks for more, or for none, is told this instead.
    default_timeout: Keep-alive times this is the silence that ends a connection.
    """

    max_time: Annotated[int, between(1, 65_535)] = 3_600
    default_timeout: Annotated[float, between(1.0, 10.0)] = 1.5


class MqttProtocol(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.protocol]`: The limits of MQTT sessions, connections and packets.

    max_session_expiry_interval: Seconds that a session outlives its connection at most.
    default_session_expiry_interval: Seconds for MQTT 3 clients that connect with clean session 0.
    topic_alias_max: Topic aliases that a client may use toward the server.
    max_packet_size: Bytes of the largest packet that a client may send.
    receive_max: QoS 1 and 2 messages that a client may have unacknowledged.
    max_message_expiry_interval: Seconds that any message lives at most; 0: no cap.
    max_inflight: QoS 1 and 2 messages unacknowledged toward a client at most.
    max_queued_messages: Messages that wait in memory for one session.
    max_queued_bytes: Bytes of the messages that wait in memory for one session.
    max_outbox_bytes: Bytes unsent to a client beyond which QoS 0 messages are dropped.
    connect_timeout_ms: Milliseconds from the accepted connection to its CONNECT.
    linger_timeout_ms: Milliseconds that a client has to take the last bytes and end its side.
    max_connect_size: Bytes of the largest CONNECT packet; max_packet_size bounds it too.
    max_topic_levels: Levels of a topic name or filter.
    max_subscriptions: Subscriptions of one session.
    max_server_topic_aliases: Topic aliases that the server uses toward one client.
    response_information: What a client that asks for it is told as the beginning of its response
        topics; ${clientid} and ${username} stand for its own; "": nothing.
    overlap: What a session gets whose subscriptions match a message more than once: combined: one
        copy, of the highest QoS and with all subscription identifiers; separate: one for each.
    exclusive_subscription: Take subscriptions to $exclusive/filter, which one session of the node
        has; when switched off they are refused (0x8F), and those of durable sessions stay.
    publisher_route_cache: Topics whose routes one publisher's connection remembers.
    route_cache: Topics whose routes a core remembers.
    """

    max_session_expiry_interval: Annotated[int, between(0, U32_MAX)] = 604_800
    default_session_expiry_interval: Annotated[int, between(0, U32_MAX)] = 604_800
    topic_alias_max: Annotated[int, between(0, 65_535)] = 1_024
    max_packet_size: Annotated[int, between(1_024, 268_435_460)] = 10_485_760
    receive_max: Annotated[int, between(1, 65_535)] = 1_024
    max_message_expiry_interval: Annotated[int, between(0, U32_MAX)] = 0
    max_inflight: Annotated[int, between(1, 65_535)] = 1_000
    max_queued_messages: Annotated[int, between(1, 1_000_000_000)] = 100_000
    max_queued_bytes: Annotated[int, between(1_024, TIB)] = 67_108_864
    max_outbox_bytes: Annotated[int, between(4_096, GIB)] = 4_194_304
    connect_timeout_ms: Annotated[int, between(10, 600_000)] = 10_000
    linger_timeout_ms: Annotated[int, between(0, 600_000)] = 2_000
    max_connect_size: Annotated[int, between(128, 268_435_460)] = 262_144
    max_topic_levels: Annotated[int, between(1, 65_535)] = 128
    max_subscriptions: Annotated[int, between(1, 10_000_000)] = 10_000
    max_server_topic_aliases: Annotated[int, between(0, 65_535)] = 1_024
    response_information: Annotated[str, Meta(max_length=1_024)] = ""
    overlap: Literal["combined", "separate"] = "combined"
    exclusive_subscription: bool = True
    publisher_route_cache: Annotated[int, between(1, 1_000_000)] = 1_024
    route_cache: Annotated[int, between(16, 100_000_000)] = 65_536


class MqttRetained(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.retained]`: The retained messages of one core (MQTT5 3.3.1.3).

    max_messages: Retained messages per core.
    max_bytes: Bytes of retained messages per core.
    expiry_seconds: Seconds after which a retained message is forgotten whose publisher has not
        said for how long it holds; 0: never. What the server itself publishes stays.
    """

    max_messages: Annotated[int, between(0, 1_000_000_000)] = 1_000_000
    max_bytes: Annotated[int, between(0, TIB)] = GIB
    expiry_seconds: Annotated[int, between(0, U32_MAX)] = 0


class MqttShared(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.shared]`: Shared subscriptions (MQTT5 4.8.2).

    max_pending: Messages that a group without a ready member keeps.
    strategy: How groups choose who takes a message: round_robin: one after the other; random;
        sticky: the same as long as it can; least_inflight: who has fewest unacknowledged ones;
        hash_clientid: by who published (each message of every publisher is then looked at by
        itself); hash_topic: by the topic; local: whose core the publisher's is, else round_robin.
        Only members who are connected and not full are chosen from.
    """

    max_pending: Annotated[int, between(0, 1_000_000_000)] = 100_000
    strategy: Strategy = "round_robin"
    groups: tuple[SharedGroup, ...] = ()


class MqttInbox(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.inbox]`: What waits on disk for a durable session that is offline or slow.

    max_messages: Messages that wait for one session.
    max_bytes: Bytes of the messages that wait for one session.
    max_age_ms: Milliseconds that a message waits at most; 0: no bound but its own expiry.
    on_full: drop_oldest: a session over a limit loses what waits longest; refuse_newest: it does
        not get what comes. Each message that is lost is counted.
    """

    max_messages: Annotated[int, between(1, 1_000_000_000)] = 100_000
    max_bytes: Annotated[int, between(1_024, TIB)] = 67_108_864
    max_age_ms: Annotated[int, between(0, CENTURY_MS)] = 604_800_000
    on_full: Literal["drop_oldest", "refuse_newest"] = "drop_oldest"


class MqttDelayed(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.delayed]`: Delayed publish: $delayed/<seconds or Unix time>/<topic>.

    A number up to 1000000000 is seconds from now, a greater one a Unix time; one that has passed
    means at once. A message that expires before it is due is not delivered.

    enable: Take such messages; when switched off they are refused, and those that wait still go.
    max_delay_seconds: Seconds that a message may be delayed.
    max_messages: Delayed messages that a core keeps.
    """

    enable: bool = True
    max_delay_seconds: Annotated[int, between(1, U32_MAX)] = 4_294_967
    max_messages: Annotated[int, between(0, 1_000_000_000)] = 10_000_000


class MqttRuntime(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime]`: MQTT 3.1, 3.1.1 and 5.0."""

    server: MqttServer = field(default_factory=MqttServer)
    tls: MqttTls = field(default_factory=MqttTls)
    keep_alive: MqttKeepAlive = field(default_factory=MqttKeepAlive)
    protocol: MqttProtocol = field(default_factory=MqttProtocol)
    retained: MqttRetained = field(default_factory=MqttRetained)
    shared: MqttShared = field(default_factory=MqttShared)
    inbox: MqttInbox = field(default_factory=MqttInbox)
    delayed: MqttDelayed = field(default_factory=MqttDelayed)
    auth: MqttAuth = field(default_factory=MqttAuth)
    listener: MqttListeners = field(default_factory=MqttListeners)
    limit: MqttLimit = field(default_factory=MqttLimit)
    flapping_detect: MqttFlappingDetect = field(default_factory=MqttFlappingDetect)
    system_monitor: MqttSystemMonitor = field(default_factory=MqttSystemMonitor)
    events: MqttEvents = field(default_factory=MqttEvents)
    slow_subscribe: MqttSlowSubscribe = field(default_factory=MqttSlowSubscribe)
    topic_rewrite: tuple[TopicRewrite, ...] = ()
    auto_subscribe: tuple[AutoSubscribe, ...] = ()
    takeover: MqttTakeover = field(default_factory=MqttTakeover)
    quic: MqttQuic = field(default_factory=MqttQuic)
    bridges: tuple[MqttBridge, ...] = ()
