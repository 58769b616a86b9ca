"""The format of a data directory: a file that says what wrote it, and a refusal of the future."""

from robustmq.errors import ConfigError
from robustmq.storage.files import Files, read_small, write_small

FORMAT_FILE = "format"


def claim(files: Files, directory: str, engine: str, version: int) -> None:
    """Make a directory ours, or check that it is: format `version` of `engine`, or an older one.

    Raises ConfigError, with what to do, when another engine or a newer release wrote it.
    """
    files.mkdir(directory)
    path = f"{directory}/{FORMAT_FILE}"
    found = read_small(files, path)
    if not found:
        write_small(files, path, f"{engine} {version}\n".encode())
        files.sync_directory(directory)
        return
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
