"""The node's records on disk: what an administrator has set by the API, in one small file."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from robustmq.errors import ConfigError, Refusal, Refused
from robustmq.workers import log
from robustmq.workers.questions import Record

FILE: Final = "records.json"
FORMAT: Final = 1

_log = log.EventLog("records")


class _File(msgspec.Struct):
    """The file's content: records by kind and name."""

    format: int
    version: int
    records: dict[str, dict[str, dict[str, Any]]]


class Records:
    """Records by kind and name; a change is durable before any core is told.

    `publish(version, records)` tells the workers and returns the numbers of those that have not
    applied it in time. Raises ConfigError when the file of an earlier life cannot be used.
    """

    def __init__(
        self,
        directory: Path,
        most: int,
        publish: Callable[[int, Sequence[Record]], Awaitable[list[int]]],
    ) -> None:
        self._path = directory / FILE
        self._most = most
        self._publish = publish
        self._lock = asyncio.Lock()
        content = _read(self._path)
        self.version = content.version
        self._kinds = content.records

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the records of a kind by name; not to be changed."""
        return self._kinds.get(kind, {})

    def image(self) -> list[Record]:
        """Return all records."""
        return [
            Record(kind, name, value)
            for kind, named in self._kinds.items()
            for name, value in named.items()
        ]

    async def change(self, records: Sequence[Record]) -> list[int] | Refused:
        """Set and remove records together: first on the disk, then on every core.

        Returns the numbers of the cores that have not said in time that they know it: none, as a
        rule. Refused when there would be too many records, or the disk fails: nothing has
        changed then.
        """
        async with self._lock:
            kinds = {kind: dict(named) for kind, named in self._kinds.items()}
            for record in records:
                named = kinds.setdefault(record.kind, {})
                if record.value is None:
                    named.pop(record.name, None)
                else:
                    named[record.name] = record.value
            if sum(map(len, kinds.values())) > self._most:
                return Refused(
                    Refusal.QUOTA_EXCEEDED,
                    f"the node keeps {self._most} records at most (admin.max_records): delete some",
                )
            content = _File(FORMAT, self.version + 1, kinds)
            try:
                await asyncio.to_thread(_write, self._path, msgspec.json.encode(content))
            except OSError as error:
                _log.error("records are not written", path=self._path, reason=error.strerror)
                return Refused(
                    Refusal.UNAVAILABLE, f"{self._path} cannot be written: {error.strerror}"
                )
            self.version, self._kinds = content.version, kinds
            # Within the lock: versions leave in their order.
            return await self._publish(self.version, records)


def _read(path: Path) -> _File:
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        return _File(FORMAT, 0, {})
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}; repair it, or move it away to start without records"
        ) from error
    if content.format != FORMAT:
        raise ConfigError(
            f"{path} has format {content.format}, this version reads {FORMAT}: "
            "a newer version has written it"
        )
    return content


def _write(path: Path, data: bytes) -> None:
    """Replace the file, so that it holds all of the old or all of the new (`rename(2)`)."""
    draft = path.with_suffix(".new")
    with open(draft, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
