"""The configuration of what a node says of itself over MQTT: alarms, slow subscribers."""

from typing import Annotated, Literal

from msgspec import Struct

from robustmq.settings.bounds import between


class MqttSystemMonitor(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.system_monitor]`: What a node says of itself.

    enable: Raise alarms.
    check_interval_ms: Milliseconds between two looks; an alarm ends after three without a reason.
    os_cpu_high_watermark: Percent of the machine's processor time that raise an alarm.
    os_cpu_low_watermark: Percent below which it ends.
    os_memory_high_watermark: Percent of the machine's memory that raise an alarm.
    os_memory_low_watermark: Percent below which it ends.
    connection_high_watermark: Percent of its connections that a worker has, to raise an alarm.
    connection_low_watermark: Percent below which it ends.
    certificate_days: Days before a certificate expires at which an alarm is raised.
    max_alarm_history: Alarms that have ended and are still listed.
    system_topic_interval_ms: Milliseconds between two reports below $SYS, the first one included;
        0: none.
    """

    enable: bool = True
    check_interval_ms: Annotated[int, between(100, 86_400_000)] = 10_000
    os_cpu_high_watermark: Annotated[float, between(0, 100)] = 70.0
    os_cpu_low_watermark: Annotated[float, between(0, 100)] = 60.0
    os_memory_high_watermark: Annotated[float, between(0, 100)] = 80.0
    os_memory_low_watermark: Annotated[float, between(0, 100)] = 70.0
    connection_high_watermark: Annotated[float, between(0, 100)] = 90.0
    connection_low_watermark: Annotated[float, between(0, 100)] = 80.0
    certificate_days: Annotated[int, between(0, 36_500)] = 14
    max_alarm_history: Annotated[int, between(0, 1_000_000)] = 1_000
    system_topic_interval_ms: Annotated[int, between(0, 86_400_000)] = 60_000


class MqttSlowSubscribe(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.slow_subscribe]`: Who takes long for the QoS 1 and 2 messages that it gets.

    enable: Look for such clients.
    record_time: Milliseconds from which on a client is slow.
    delay_type: Which time is measured: Whole: until the message is acknowledged; Internal: until
        it is sent, because the client has too many others unacknowledged.
    sample_ms: Milliseconds between two looks at the oldest message that waits for each client.
    window_ms: Milliseconds that a client is listed after it was last slow.
    max_entries: Clients and topics that a worker lists, the slowest.
    """

    enable: bool = False
    record_time: Annotated[int, between(1, 86_400_000)] = 1_000
    delay_type: Literal["Whole", "Internal"] = "Whole"
    sample_ms: Annotated[int, between(50, 86_400_000)] = 500
    window_ms: Annotated[int, between(1_000, 86_400_000)] = 300_000
    max_entries: Annotated[int, between(1, 10_000)] = 100


class MqttEvents(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.events]`: What happens to clients, told below $SYS.

    enable: Tell who connects and disconnects, subscribes and unsubscribes.
    """

    enable: bool = False
