"""Which kernel runs: what the environment asks for and what is there."""

import importlib.util
import os
import subprocess
import sys

import pytest

SHOW = "from robustmq._kernel.choice import COMPILED, KERNEL; print(COMPILED, KERNEL)"
# A kernel that is missing, whatever this checkout has built.
HIDE = "import sys; sys.modules['robustmq._kernel.fast.crc'] = None; "
BUILT = importlib.util.find_spec("robustmq._kernel.fast.crc") is not None


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ROBUSTMQ_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_pure_is_chosen_silently_when_asked_for() -> None:
    done = run(SHOW, ROBUSTMQ_PURE="1")
    assert (done.stdout, done.stderr) == ("False pure\n", "")


def test_pure_wins_over_require() -> None:
    done = run(HIDE + SHOW, ROBUSTMQ_PURE="1", ROBUSTMQ_REQUIRE_KERNEL="1")
    assert (done.stdout, done.stderr) == ("False pure\n", "")


def test_a_missing_kernel_is_said_once_in_one_line() -> None:
    done = run(HIDE + SHOW + "; import robustmq._kernel.choice, robustmq._kernel.crc")
    assert done.stdout == "False pure\n"
    assert done.stderr.startswith("robustmq: the compiled kernel is missing")
    assert "scripts/setup" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_required_kernel_that_is_missing_is_an_import_error() -> None:
    done = run(HIDE + SHOW, ROBUSTMQ_REQUIRE_KERNEL="1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: the compiled kernel of robustmq")


@pytest.mark.skipif(
    not BUILT and os.environ.get("ROBUSTMQ_REQUIRE_KERNEL") != "1", reason="nothing is compiled"
)
def test_the_compiled_kernel_is_chosen_when_it_is_there() -> None:
    done = run(SHOW)
    assert (done.stdout, done.stderr) == ("True compiled\n", "")
