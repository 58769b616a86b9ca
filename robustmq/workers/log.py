"""Structured log lines on standard error: sentences on a terminal, JSON anywhere else.

Built on the standard library's logging without threads or queues, so that it is safe before and
after a fork. A line has the time (UTC, milliseconds), level, process, event and its fields.
"""

import contextlib
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

import msgspec

from robustmq.config import Config, Log
from robustmq.errors import ConfigError

_LOGGER = logging.getLogger("robustmq")


class EventLog:
    """Writes events: a short constant sentence and fields, `log.info("worker ready", core=1)`."""

    def __init__(self, name: str) -> None:
        self._logger = _LOGGER.getChild(name)

    def debug(self, event: str, **fields: object) -> None:
        """Log what only somebody who looks for a fault wants to see."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Log a change of state that an operator expects."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log what an operator should know although the server goes on."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Log a failure; inside an except block the traceback goes with it."""
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: str, fields: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            failing = level >= logging.ERROR and sys.exc_info()[0] is not None
            self._logger.log(level, event, extra={"fields": fields}, exc_info=failing)


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its end."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "process": self._process,
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class HumanFormatter(logging.Formatter):
    """Time, level, process, event, then the fields as name=value."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with a traceback on lines of its own."""
        fields: dict[str, object] = getattr(record, "fields", {})
        line = f"{_time(record)} {record.levelname:<7} {self._process:<10} {record.getMessage()}"
        line += "".join(f"  {name}={_shown(value)}" for name, value in fields.items())
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _shown(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and " " not in text and text
    return text if plain else repr(text)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_human(config: Log, stream: TextIO) -> bool:
    """Say whether lines for this stream are for people: as configured, or on a terminal."""
    return config.format == "human" or (config.format == "auto" and stream.isatty())


def configure(config: Log, process: str, stream: TextIO | None = None) -> None:
    """Send all log lines of this process to `stream` (standard error), named `process`.

    Replaces what was configured before: a child calls it once after the fork.
    """
    out = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        HumanFormatter(process) if is_human(config, out) else JsonFormatter(process)
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    apply_level(config)


def reload_level(reload: Callable[[], Config]) -> None:
    """Take over the level from the configuration read anew: what a child does on SIGHUP."""
    # The supervisor has read the same file and has told what is wrong with it.
    with contextlib.suppress(ConfigError):
        apply_level(reload().log)


def apply_level(config: Log) -> None:
    """Take over the level for our own lines; those of libraries stay at warnings."""
    _LOGGER.setLevel(config.level.upper())
