"""The file in which earlier versions kept what an administrator had set; it is taken over once."""

import os
from pathlib import Path
from typing import Any, Final

import msgspec

from robustmq.errors import ConfigError
from robustmq.meta.records import Record, encoded

FILE: Final = "records.json"
FORMAT: Final = 1


class _File(msgspec.Struct):
    """The file's content: records by kind and name."""

    format: int
    version: int
    records: dict[str, dict[str, dict[str, Any]]]


def taken_over(directory: Path) -> list[Record]:
    """Read the records of the file, none when there is none; raises ConfigError."""
    path = directory / FILE
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}; repair it, or move it away to start without records"
        ) from error
    if content.format != FORMAT:
        raise ConfigError(
            f"{path} has format {content.format}, this version reads {FORMAT}: "
            "a newer version has written it"
        )
    return [
        Record(kind, name, encoded(value))
        for kind, named in content.records.items()
        for name, value in named.items()
    ]


def remove(directory: Path) -> None:
    """Remove the file: all that it says is committed."""
    (directory / FILE).unlink(missing_ok=True)
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
