"""CPU time and memory are those of the whole process tree."""

import mmap
import os
import subprocess
import sys
import time

from perf import processes

BURN = "import time\nwhile time.process_time() < 0.3: pass\n"
PARENT = """
import os, subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1]])
burnt = sys.argv[1] + "print('burnt', flush=True); input()"
child = subprocess.Popen([sys.executable, "-c", burnt], stdin=subprocess.PIPE)
input()
child.communicate(b"")
"""


def test_descendants_and_reaped_children_count() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        before = processes.cpu(process.pid)
        assert process.stdout is not None
        assert process.stdout.readline() == b"burnt\n"
        after = processes.cpu(process.pid)
        assert len(processes.tree(process.pid)) == 2
        process.communicate(b"\n")
    # Two children burnt 0.3 s each; one has ended and the other still runs.
    assert 0.55 <= after.since(before) <= 1.5


def test_a_steady_tree_is_exact() -> None:
    before = processes.cpu(os.getpid())
    began = time.process_time()
    while time.process_time() - began < 0.004:
        pass
    spent = time.process_time() - began
    found = processes.cpu(os.getpid()).since(before)
    assert spent <= found + 0.002
    assert found < spent + 0.1


def test_memory_is_at_least_what_is_touched() -> None:
    before = processes.memory(os.getpid())
    # A mapping of its own: the heap may have 32 MiB to spare that were touched by earlier tests.
    with mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        grown = processes.memory(os.getpid()) - before
    assert 30 << 20 <= grown <= 40 << 20


def test_a_vanished_root_is_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert processes.memory(process.pid) == 0
    assert processes.cpu(process.pid).threads == {}
