"""The real supervisor, with a move that stops in the middle.

ROBUSTMQ_TEST_STOP says where it waits to be killed: "writing", "written" (all but the switch) or
"switched" (the old data is still there); "full": it fails instead, as on a full disk.
"""

import errno
import os
import signal
import sys
from functools import partial
from unittest.mock import patch

from robustmq.cli import supervisor as command
from robustmq.storage.layout import Layout
from robustmq.workers import log, relocation, supervisor
from robustmq.workers.inheritance import ServerInheritance


def _wait(*_: object) -> None:
    log.EventLog("test").info("stopped here")
    while True:
        signal.pause()


def _fail(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _wait_when_switched(layout: Layout) -> None:
    if layout.generation > 1:
        _wait()


def run(inheritance: ServerInheritance) -> None:
    """Move as far as the environment says."""
    where = os.environ["ROBUSTMQ_TEST_STOP"]
    changed: dict[str, tuple[object, str, object]] = {
        "writing": (relocation, "commit", _wait),
        "full": (relocation, "commit", _fail),
        "written": (Layout, "record", _wait),
        "switched": (relocation, "remove_strays", _wait_when_switched),
    }
    target, name, instead = changed[where]
    with patch.object(target, name, instead):
        relocation.run(inheritance)


def main() -> int:
    """Run a node whose moves stop."""
    programs = {**supervisor.PROGRAMS, "move": "tests.integration.slow_move"}
    with patch.object(command, "Supervisor", partial(supervisor.Supervisor, programs=programs)):
        return command.main()


if __name__ == "__main__":
    sys.exit(main())
