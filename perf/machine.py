"""What the figures were taken on: they mean little without it."""

import os
import platform
from pathlib import Path
from typing import Any


def _first(path: str, key: str = "") -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return "unknown"
    found = [line for line in lines if line.startswith(key)]
    return found[0].partition(":")[2].strip() if key and found else (lines or ["unknown"])[0]


def describe() -> dict[str, Any]:
    """Processor, cores, kernel, Python, TCP congestion control and load average."""
    return {
        "processor": _first("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "congestion_control": _first("/proc/sys/net/ipv4/tcp_congestion_control"),
        "load_average": os.getloadavg(),
    }
