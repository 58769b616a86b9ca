"""`robustmq-supervisor`: starts a node and stays until it ends."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from functools import partial

from robustmq import config as configuration
from robustmq.config import Config
from robustmq.errors import ConfigError
from robustmq.workers import log
from robustmq.workers.limits import StartError
from robustmq.workers.supervisor import Supervisor

STATUS_FAILED = 1
STATUS_CONFIGURATION = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a node; return 0 after a clean stop, 1 after a failure, 2 for a bad configuration.

    A start that fails says why in one line on standard error and leaves nothing running.
    """
    options = _parser().parse_args(arguments)
    if options.version:
        sys.stdout.write(f"robustmq {_version()}\n")
        return 0
    overrides = [*options.set]
    if options.workers is not None:
        overrides.append(f"runtime.workers={options.workers}")
    if options.data is not None:
        overrides.append(f"data_path={options.data}")
    reload = partial(configuration.load, options.config, overrides)
    try:
        config = reload()
        if options.check_config:
            sys.stdout.write("ok\n")
            return 0
        return _run(config, reload)
    except ConfigError as error:
        return _fail(str(error), STATUS_CONFIGURATION)
    except StartError as error:
        return _fail(str(error), STATUS_FAILED)


def _run(config: Config, reload: partial[Config]) -> int:
    log.configure(config.log, "supervisor")
    return Supervisor(config, reload).run()


def _fail(sentence: str, status: int) -> int:
    sys.stderr.write(f"robustmq-supervisor: {sentence}\n")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="robustmq-supervisor", description="Start a robustmq node and stay until it ends."
    )
    parser.add_argument("-w", "--workers", metavar="N", help='workers, or "auto": one per core')
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="TOML file; without it the defaults are used"
    )
    parser.add_argument(
        "--check-config", action="store_true", help='say "ok" or what is wrong, and exit'
    )
    parser.add_argument("--data", metavar="DIR", help="the data directory (data_path)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="set a key; wins over the file and the environment; may be repeated",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    return parser


def _version() -> str:
    # Looked up here only: the supervisor's memory need not hold a reader of package metadata.
    metadata = importlib.import_module("importlib.metadata")
    try:
        return str(metadata.version("robustmq"))
    except ModuleNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
