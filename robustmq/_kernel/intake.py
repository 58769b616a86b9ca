"""One MQTT connection's input, compiled where possible: framing, runs, acknowledgements."""

from typing import TYPE_CHECKING

from robustmq._kernel.choice import COMPILED

if COMPILED and not TYPE_CHECKING:
    from robustmq._kernel.fast.intake import Handle, Intake
else:
    from robustmq._kernel.pure.intake import Handle, Intake

__all__ = ["Handle", "Intake"]
