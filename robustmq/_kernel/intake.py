"""One MQTT connection's input, compiled where possible: framing, runs, acknowledgements."""

from typing import TYPE_CHECKING, Final

from robustmq._kernel.choice import COMPILED

if COMPILED and not TYPE_CHECKING:
    from robustmq._kernel.fast.intake import Handle, Intake
else:
    from robustmq._kernel.pure.intake import Handle, Intake

__all__ = ["ADMISSION", "CLAIM", "Handle", "Intake"]

ADMISSION: Final = 8
"""Why an intake is held: its client is not connected yet."""
CLAIM: Final = 16
"""Why an intake is held: another core is asked whether an exclusive subscription is free."""
