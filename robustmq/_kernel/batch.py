"""Building and walking record batches, compiled where possible."""

from typing import TYPE_CHECKING

from robustmq._kernel.choice import COMPILED

if COMPILED and not TYPE_CHECKING:
    from robustmq._kernel.fast.batch import (
        Acks,
        BatchBuilder,
        cut,
        gather,
        max_qos,
        records,
        slice_of,
        survey,
    )
else:
    from robustmq._kernel.pure.batch import (
        Acks,
        BatchBuilder,
        cut,
        gather,
        max_qos,
        records,
        slice_of,
        survey,
    )

__all__ = ["Acks", "BatchBuilder", "cut", "gather", "max_qos", "records", "slice_of", "survey"]
