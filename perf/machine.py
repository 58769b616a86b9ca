"""What the figures were taken on: they mean little without it."""

import os
import platform
import tempfile
from pathlib import Path
from typing import Any


def _first(path: str, key: str = "") -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return "unknown"
    found = [line for line in lines if line.startswith(key)]
    return found[0].partition(":")[2].strip() if key and found else (lines or ["unknown"])[0]


def _file_system(directory: Path) -> str:
    """The device and the type of the file system that a directory is on."""
    place = directory.resolve()
    above = {str(each) for each in (place, *place.parents)}
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    found = [words for words in mounts if words[1] in above]
    return " ".join(max(found, key=lambda words: len(words[1]))[:3:2]) if found else "unknown"


def describe(directory: Path | None) -> dict[str, Any]:
    """Processor, cores, kernel, Python, TCP congestion control, load average, and the disk.

    The disk is that of `directory`; None: of the temporary files.
    """
    return {
        "processor": _first("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "congestion_control": _first("/proc/sys/net/ipv4/tcp_congestion_control"),
        "load_average": os.getloadavg(),
        "disk": _file_system(directory or Path(tempfile.gettempdir())),
    }
