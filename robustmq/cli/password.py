"""`robustmq-password`: turns a password into what the configuration keeps of it."""

import argparse
import getpass
import secrets
import sys
from collections.abc import Sequence

from robustmq.policy.passwords import ITERATIONS, METHODS, written
from robustmq.settings.users import ITERATIONS_MAX

_SALT_BYTES = 16
_STATUS_FAILED = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the line `password = [...]` for a user; return 0, or 1 when there is no password.

    The password is asked for twice on a terminal, and otherwise the first line of the input.
    """
    options = _parser().parse_args(arguments)
    password = _asked() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    if not password:
        sys.stderr.write("robustmq-password: no password was given, or two different ones\n")
        return _STATUS_FAILED
    methods = [options.method] if options.method else [*METHODS]
    lines = [
        written(method, password, secrets.token_bytes(_SALT_BYTES), options.iterations)
        for method in methods
    ]
    quoted = ", ".join(f'"{line}"' for line in lines)
    sys.stdout.write(f"password = [{quoted}]\n")
    return 0


def _asked() -> str:
    password = getpass.getpass("Password: ")
    return password if getpass.getpass("Once more: ") == password else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="robustmq-password",
        description="Print what [[users]] of the configuration keeps of a password.",
    )
    parser.add_argument(
        "-m", "--method", choices=[*METHODS], help="for one method of SCRAM only; else for both"
    )
    parser.add_argument(
        "-i",
        "--iterations",
        type=int,
        choices=range(1, ITERATIONS_MAX + 1),
        metavar="N",
        default=ITERATIONS,
        help=f"rounds of PBKDF2, {ITERATIONS} unless said",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
