"""The format of a data directory: a file that says what wrote it, and a refusal of the future."""

from typing import Final

from robustmq.errors import ConfigError
from robustmq.storage.files import Files, read_small, write_small

FORMAT_FILE = "format"
ROCKSDB: Final = "rocksdb"
ROCKSDB_FORMAT: Final = 1
"""The format of a core's database that this release writes, and the newest that it reads."""


def claim(files: Files, directory: str, engine: str, version: int) -> None:
    """Make a directory ours, or check that it is: format `version` of `engine`, or an older one.

    Raises ConfigError, with what to do, when another engine or a newer release wrote it.
    """
    files.mkdir(directory)
    if not verify(files, directory, engine, version):
        write_small(files, f"{directory}/{FORMAT_FILE}", f"{engine} {version}\n".encode())
        files.sync_directory(directory)


def verify(files: Files, directory: str, engine: str, version: int) -> bool:
    """Check as `claim` does; False when nobody has written there. Raises ConfigError."""
    found = read_small(files, f"{directory}/{FORMAT_FILE}")
    if not found:
        return False
    name, _, number = found.decode("ascii", "replace").strip().partition(" ")
    if name != engine or not number.isdecimal():
        raise ConfigError(
            f"{directory} holds {found[:40]!r}, not the files of the {engine} engine:"
            " set another data directory"
        )
    if int(number) > version:
        raise ConfigError(
            f"{directory} was written by a newer robustmq (format {number}, this one knows"
            f" {version}): use that release, or another data directory"
        )
    return True
