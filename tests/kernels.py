"""The implementations of a kernel that a test runs over: the twin, and what was compiled."""

import importlib
import importlib.util
import os
from types import ModuleType

import pytest
from _pytest.mark import ParameterSet


def modules(name: str) -> list[ModuleType]:
    """Return the modules of kernel `name`: the twin, then the compiled one where it is built.

    With `ROBUSTMQ_REQUIRE_KERNEL=1` a missing compiled module is an ImportError.
    """
    pure, fast = (f"robustmq._kernel.{kind}.{name}" for kind in ("pure", "fast"))
    found = [importlib.import_module(pure)]
    if os.environ.get("ROBUSTMQ_REQUIRE_KERNEL") == "1" or importlib.util.find_spec(fast):
        found.append(importlib.import_module(fast))
    return found


def implementations(name: str) -> list[ParameterSet]:
    """Return `modules(name)` as parameters of a test: `pure` and `fast`."""
    return [pytest.param(m, id=m.__name__.split(".")[-2]) for m in modules(name)]
