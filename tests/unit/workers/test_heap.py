"""A worker keeps the memory that it frees, so that large objects cost no page faults."""

import subprocess
import sys

_FAULTS = """
import resource, sys
from robustmq.workers import heap
if sys.argv[1] == "keeps":
    heap.keep()
for _ in range(20):
    bytes(1_000_000), bytes(1_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    kept = [b"x" * 1_000_000 for _ in range(8)]
    del kept
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_large_objects_that_come_and_go_cost_few_page_faults() -> None:
    kept = _faults("keeps")
    # Eight megabytes have 2,000 pages; they are touched for the first time once.
    assert kept < 4_000
    assert _faults("does not") > 2 * kept
