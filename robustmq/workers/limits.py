"""What the machine must give before anything is forked: cores, open files, the data directory."""

import contextlib
import errno
import fcntl
import os
import resource
from pathlib import Path
from typing import Final

from robustmq.config import WORKERS_MAX, Config

CONNECTIONS_MIN: Final = 256
FILES_OF_A_PROCESS: Final = 64
FILES_PER_WORKER: Final = 8
RINGS_TOTAL_BYTES: Final = 256 << 20
RING_BYTES_MIN: Final = 256 << 10
RING_BYTES_MAX: Final = 4 << 20


class StartError(Exception):
    """The machine does not allow the start; the message is one sentence for the administrator."""


def worker_count(config: Config) -> int:
    """Return how many workers run: as configured, or one per core that we may use.

    None when the node has no role but meta.
    """
    if not {"broker", "engine"} & set(config.roles):
        return 0
    if isinstance(config.runtime.workers, int):
        return config.runtime.workers
    return min(len(os.sched_getaffinity(0)), WORKERS_MAX)


def ring_bytes(config: Config, endpoints: int) -> int:
    """Return the bytes of each ring, a power of two, for so many endpoints."""
    if config.runtime.ring_bytes:
        return config.runtime.ring_bytes
    share = RINGS_TOTAL_BYTES // (endpoints * endpoints)
    return min(max(1 << (share.bit_length() - 1), RING_BYTES_MIN), RING_BYTES_MAX)


def files_beside_connections(workers: int) -> int:
    """Return how many file descriptors a process needs besides those of its connections."""
    return FILES_OF_A_PROCESS + FILES_PER_WORKER * workers


def raise_open_files(config: Config, workers: int) -> None:
    """Raise the soft limit of open files to the hard one; StartError when that is too low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # A hard limit of infinity cannot always be set: then the soft limit is what there is.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    connections = config.cluster_limit.max_network_connection or CONNECTIONS_MIN
    needed = connections + files_beside_connections(workers)
    allowed = _open_files()
    if allowed < needed:
        raise StartError(
            f"too few file descriptors: {workers} workers with {connections} connections need "
            f"{needed} each, the hard limit is {allowed}; raise it (ulimit -Hn, LimitNOFILE=)"
        )


def connection_count(config: Config, workers: int) -> int:
    """Return how many connections a worker may hold at once.

    That is cluster_limit.max_network_connection, or what RLIMIT_NOFILE leaves of this process.
    """
    room = _open_files() - files_beside_connections(workers)
    return config.cluster_limit.max_network_connection or max(room, 1)


def _open_files() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (1 << 31) - 1 if soft == resource.RLIM_INFINITY else soft


def lock_data_directory(path: str) -> int:
    """Make and lock the data directory; return the descriptor that holds the lock.

    Children inherit the descriptor, so that the directory is free only when all of them are gone.
    Raises StartError when another server holds it, with that server's process id.
    """
    directory = Path(path)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StartError(f"the data directory {path} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        if error.errno not in {errno.EAGAIN, errno.EACCES}:
            raise StartError(
                f"the data directory {path} cannot be locked: {error.strerror}"
            ) from error
        raise StartError(
            f"the data directory {path} is in use by another server (process {holder})"
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
