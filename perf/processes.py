"""CPU time and memory of a broker: all processes of its tree, read from /proc.

A broker's figure is the sum over its root process and all descendants, with the children that
they have reaped, so that a broker of many processes is not flattered.
"""

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICK_SECONDS = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CpuSample:
    """CPU time of a process tree at one moment, in seconds.

    `ticks` is utime and stime of all processes, `reaped` that of the children they waited for;
    both come in steps of 10 ms. `threads` is the exact running time of each living thread.
    """

    ticks: float
    reaped: float
    threads: dict[tuple[int, int], float]

    def since(self, earlier: "CpuSample") -> float:
        """The CPU seconds between two samples: exact while no thread came or went."""
        reaped = self.reaped - earlier.reaped
        if self.threads.keys() == earlier.threads.keys():
            return sum(self.threads.values()) - sum(earlier.threads.values()) + reaped
        return self.ticks - earlier.ticks + reaped


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name; the first one (state) has the index 0."""
    text = (PROC / str(pid) / "stat").read_text()
    return text[text.rindex(")") + 2 :].split()


def tree(root: int) -> list[int]:
    """The process ids of `root` and its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                parent = int(_stat(int(entry.name))[1])
            except (OSError, ValueError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu(root: int) -> CpuSample:
    """The CPU time of the tree of `root` until now."""
    ticks = reaped = 0.0
    threads: dict[tuple[int, int], float] = {}
    for pid in tree(root):
        try:
            words = _stat(pid)
            ticks += (int(words[11]) + int(words[12])) * TICK_SECONDS
            reaped += (int(words[13]) + int(words[14])) * TICK_SECONDS
            for task in (PROC / str(pid) / "task").iterdir():
                running = int((task / "schedstat").read_text().split()[0])
                threads[pid, int(task.name)] = running / 1e9
        except OSError:
            continue
    return CpuSample(ticks, reaped, threads)


def resident(root: int) -> int:
    """Bytes of resident memory (RSS) of the tree of `root`, summed: what is shared counts twice."""
    total = 0
    for pid in tree(root):
        try:
            pages = int((PROC / str(pid) / "statm").read_text().split()[1])
        except OSError:
            continue
        total += pages * os.sysconf("SC_PAGE_SIZE")
    return total


def memory(root: int) -> int:
    """Bytes of memory of the tree of `root`: the proportional set sizes (PSS), summed.

    Memory that is shared between processes is counted once. Socket buffers belong to the kernel
    and are not in it, for no broker.
    """
    total = 0
    for pid in tree(root):
        try:
            lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def steal_seconds() -> tuple[float, float]:
    """Seconds stolen by the hypervisor and all seconds of all processors, since the boot."""
    words = (PROC / "stat").read_text().splitlines()[0].split()[1:9]
    values = [int(word) * TICK_SECONDS for word in words]
    return values[7], sum(values)
