"""Disks that can be full: a small one in a mount namespace, or files that may not grow."""

import contextlib
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Final, Protocol

import psutil

from tests.chaos.plant import RobustPlant
from tests.integration.supervised import ROOT

UNSHARE: Final = ["unshare", "--user", "--map-root-user", "--mount"]
MEGABYTES: Final = 96
CHUNK: Final = 1 << 20
GROWN: Final = 4_096


class Disk(Protocol):
    """Where a node keeps its data. `prefix` is shell that runs before the node does."""

    prefix: str

    def fill(self, plant: RobustPlant) -> None:
        """Leave no room."""
        ...

    def clear(self, plant: RobustPlant) -> None:
        """Make room again."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class SmallDisk:
    """A tmpfs that only the node sees, and who looks through the process that holds it."""

    def __init__(self, place: Path) -> None:
        script = f'mount -t tmpfs -o size={MEGABYTES}m none "$1" && echo mounted && exec sleep 3600'
        self._holder = subprocess.Popen(
            [*UNSHARE, "sh", "-c", script, "sh", str(place)], stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "mounted\n"
        self._ballast = Path(f"/proc/{self._holder.pid}/root{place}/ballast")
        enter = f"nsenter --target {self._holder.pid} --user --preserve-credentials --mount"
        self.prefix = f'exec {enter} --wd={ROOT} -- "$@"'

    def fill(self, plant: RobustPlant) -> None:
        """Write a file until nothing more fits."""
        with self._ballast.open("wb", buffering=0) as file:
            for size in (CHUNK, GROWN):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass

    def clear(self, plant: RobustPlant) -> None:
        """Remove that file."""
        self._ballast.unlink()

    def close(self) -> None:
        """End what holds it."""
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()


class LimitedFiles:
    """A limit on the size of files, where nothing may be mounted: no file can grow under it."""

    # What the node says must go on to its log, so it goes through a pipe.
    prefix = "exec 2> >(exec cat >&2)"

    def fill(self, plant: RobustPlant) -> None:
        """Let no file of the node grow beyond a few bytes."""
        self._limit(plant, GROWN)

    def clear(self, plant: RobustPlant) -> None:
        """Lift the limit."""
        self._limit(plant, resource.RLIM_INFINITY)

    def _limit(self, plant: RobustPlant, size: int) -> None:
        for pid in plant.node.children().values():
            limits = psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE)
            psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, (size, limits[1]))

    def close(self) -> None:
        """There is nothing to let go of."""


def may_mount() -> bool:
    """Return whether this machine lets us have a mount namespace with a tmpfs."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return False
    probe = [*UNSHARE, "mount", "-t", "tmpfs", "-o", "size=1m", "none", "/mnt"]
    return subprocess.run(probe, check=False, capture_output=True).returncode == 0
