"""What lies where in the data directory: `g<generation>/core-<core>`, and a file that counts them.

Data that moves to another number of cores is written as a generation of its own; the file says
which one counts, so the switch is the renaming of that file.
"""

import contextlib
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from robustmq.errors import ConfigError
from robustmq.storage.files import Files, SystemFiles, read_small, write_small

FORMAT: Final = 1
"""The format of the data directory that this release writes, and the newest that it reads."""
FORMAT_FILE: Final = "format.json"
_CORE: Final = "core-"
_GENERATION: Final = "g"


class _Version(Struct):
    """What every format has; the rest is read when it is one that we know."""

    format: Annotated[int, Meta(ge=1)]


class _Written(_Version):
    """What format 1 has."""

    workers: Annotated[int, Meta(ge=1)]
    generation: Annotated[int, Meta(ge=1)]


class Layout:
    """One generation of a node's data. To be used by the process that holds the lock."""

    def __init__(
        self, files: Files, data_path: str, workers: int | None, generation: int = 1
    ) -> None:
        self.workers = workers
        """The number of workers that the data was written with; None when there is none."""
        self.generation = generation
        self._files = files
        self._data_path = data_path

    @property
    def path(self) -> str:
        """The directory of this generation; it may be missing."""
        return f"{self._data_path}/{_GENERATION}{self.generation}"

    def cores(self) -> list[int]:
        """The cores that have a directory, ascending."""
        return self._numbers(self.path, _CORE)

    def core_path(self, core: int) -> str:
        """The directory of a core, made when missing. Raises OSError."""
        path = f"{self.path}/{_CORE}{core}"
        if core not in self.cores():
            self._files.mkdir(path)
            self._files.sync_directory(self.path)
            self._files.sync_directory(self._data_path)
        return path

    def successor(self) -> "Layout":
        """The next generation: it counts from its `record` on, and replaces this one."""
        return Layout(self._files, self._data_path, None, self.generation + 1)

    def strays(self) -> list[str]:
        """The directories of other generations: drafts, and what was replaced."""
        numbers = self._numbers(self._data_path, _GENERATION)
        others = (each for each in numbers if each != self.generation)
        return [f"{self._data_path}/{_GENERATION}{each}" for each in others]

    def _numbers(self, path: str, kind: str) -> list[int]:
        names = self._files.listdir(path)
        numbers = (name.removeprefix(kind) for name in names if name.startswith(kind))
        return sorted(int(each) for each in numbers if each.isdecimal())

    def record(self, workers: int) -> None:
        """Note that this generation, of so many workers, is the one that counts.

        Wholly or not at all. Raises OSError.
        """
        if workers == self.workers:
            return
        written = _Written(format=FORMAT, workers=workers, generation=self.generation)
        data = msgspec.json.encode(written) + b"\n"
        write_small(self._files, f"{self._data_path}/{FORMAT_FILE}", data)
        self._files.sync_directory(self._data_path)
        self.workers = workers


def open_layout(data_path: str, files: Files | None = None) -> Layout:
    """Make the data directory when it is missing, and see what it was written with.

    Raises ConfigError, with what to do, when it cannot be used or a newer release wrote it.
    """
    files = files or SystemFiles()
    path = f"{data_path}/{FORMAT_FILE}"
    try:
        files.mkdir(data_path)
        found = read_small(files, path)
        if found is None:
            # Where the parent may not be read it cannot be synced either.
            with contextlib.suppress(PermissionError):
                files.sync_directory(str(Path(data_path).parent))
            return Layout(files, data_path, None)
    except OSError as error:
        raise ConfigError(
            f"the data directory {data_path} cannot be used: {error.strerror}"
        ) from error
    try:
        version = msgspec.json.decode(found, type=_Version).format
        if version > FORMAT:
            raise ConfigError(
                f"{data_path} was written by a newer robustmq (format {version}, this one knows"
                f" {FORMAT}): use that release, or another data directory"
            )
        written = msgspec.json.decode(found, type=_Written)
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"{path} cannot be read ({error}): restore it, for example"
            f' {{"format": {FORMAT}, "workers": 4, "generation": 1}} when the data is that of'
            " 4 workers, in the directory g1"
        ) from error
    return Layout(files, data_path, written.workers, written.generation)
