"""What all tests share: the Hypothesis profile, and which kernel a run is about."""

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "robustmq",
    deadline=None,
    print_blob=True,
    # CI decides about a change by the same examples each time; everybody else looks for new ones.
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "robustmq"))


def pytest_report_header(config: pytest.Config) -> str:
    from robustmq._kernel.choice import KERNEL

    return f"robustmq: kernel {KERNEL}"
