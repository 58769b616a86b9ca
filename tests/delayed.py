"""What tests of delayed publish share: limits, a clock that all cores have, and restarts."""

import msgspec

from robustmq.config import Config
from robustmq.settings.mqtt import MqttDelayed
from tests.fabric import Fabric, Limits, Node


class DelayedLimits(Limits):
    """Limits of a core, and those of its delayed messages."""

    delayed: MqttDelayed

    def config(self) -> Config:
        """The configuration with these limits."""
        config = super().config()
        runtime = msgspec.structs.replace(config.mqtt_runtime, delayed=self.delayed)
        return msgspec.structs.replace(config, mqtt_runtime=runtime)


def limits(
    *,
    enable: bool = True,
    max_delay_seconds: int = 4_294_967,
    max_messages: int = 1_000_000,
    max_batch_bytes: int = 1 << 20,
    pressure_bytes: int = 1 << 20,
) -> Limits:
    """Limits with these of delayed messages."""
    made = DelayedLimits(max_batch_bytes=max_batch_bytes, pressure_bytes=pressure_bytes)
    made.delayed = MqttDelayed(
        enable=enable, max_delay_seconds=max_delay_seconds, max_messages=max_messages
    )
    return made


def advance(fabric: Fabric, milliseconds: int, turns: int = 0) -> None:
    """Let time pass on all cores, then take `turns` turns of each, or all that there are to take.

    A timer whose time is no multiple of the timers' step is due up to one step later.
    """
    for node in fabric.nodes:
        node.turn.now_ms += milliseconds
        node.core.timers.run(node.turn.now_ms)
    if not turns:
        fabric.settle()
    for _ in range(turns):
        for index in range(len(fabric.nodes)):
            fabric.turn(index)


def restart(fabric: Fabric) -> Node:
    """Kill the only core of a fabric and start it again, at the same time."""
    now_ms = fabric.nodes[0].turn.now_ms
    node = fabric.replace(0)
    node.turn.now_ms = now_ms
    fabric.settle()
    return node


def pending(node: Node) -> int:
    """How many delayed messages a core has, by its own count and by its rows, which agree."""
    count = len(node.parts.delayed)
    assert count == sum(1 for _ in node.core.state.walk(b"D\0", b"E"))
    return count
