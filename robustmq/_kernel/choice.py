"""Which implementation of the kernels this process runs: compiled or the pure-Python twins.

`ROBUSTMQ_PURE=1` chooses the twins. `ROBUSTMQ_REQUIRE_KERNEL=1` makes a missing compiled
kernel an ImportError, so that a test run cannot pass on the twins by accident.
"""

import importlib
import os
import sys
from typing import Final

_PROBE: Final = "robustmq._kernel.fast.crc"
_MISSING: Final = (
    "robustmq: the compiled kernel is missing, running on the pure-Python twins (slower); "
    "install a C compiler and run scripts/setup"
)


def _is_compiled() -> bool:
    """Decide once per process; raise ImportError when the kernel is required and missing."""
    if os.environ.get("ROBUSTMQ_PURE") == "1":
        return False
    try:
        importlib.import_module(_PROBE)
    except ImportError as error:
        if os.environ.get("ROBUSTMQ_REQUIRE_KERNEL") == "1":
            raise ImportError(
                "the compiled kernel of robustmq is required (ROBUSTMQ_REQUIRE_KERNEL=1) but "
                f"cannot be loaded: {error}; install a C compiler and run scripts/setup"
            ) from error
        sys.stderr.write(_MISSING + "\n")
        return False
    return True


COMPILED: Final[bool] = _is_compiled()
KERNEL: Final[str] = "compiled" if COMPILED else "pure"
