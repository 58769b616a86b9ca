"""What the server process and the workers say to each other: questions, answers, and news.

Whatever is for a worker names the worker's life (`epoch`): what was meant for an earlier one is
not heard by the next.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

Arguments: TypeAlias = Mapping[str, Any]
Ask: TypeAlias = Callable[[Arguments], object]
"""Answers a question from its arguments; raises ValueError with a sentence when they are wrong."""

Walk: TypeAlias = Callable[[int, Arguments], Iterator[tuple[int, object | None]]]
"""Yields (position behind it, entry or None when the arguments exclude it) from a position on."""

BUDGET: Final = 1_000
"""Entries of a list that a worker looks at for one question."""


class Hello(Struct, tag=True, array_like=True):
    """A worker's life has begun."""

    epoch: int


class Question(Struct, tag=True, array_like=True):
    """For a worker: answer `kind` from `arguments`."""

    epoch: int
    number: int
    kind: str
    arguments: dict[str, Any]


class Answer(Struct, tag=True, array_like=True):
    """A worker's answer; `error` is a sentence, None when all went well."""

    number: int
    value: Any = None
    error: str | None = None


class Notice(Struct, tag=True, array_like=True):
    """Something that a worker tells unasked; nobody answers."""

    kind: str
    value: dict[str, Any]


class Greeting(Struct, tag=True, array_like=True):
    """A life of the server process has begun: it asks how far the worker's image is."""

    epoch: int


class Applied(Struct, tag=True, array_like=True):
    """A worker's image of the metadata has reached an index."""

    index: int


ToWorker: TypeAlias = Question | Greeting
ToServer: TypeAlias = Hello | Answer | Notice | Applied

_encoder: Final = msgspec.msgpack.Encoder()
_worker_decoder: Final = msgspec.msgpack.Decoder(ToWorker)
_server_decoder: Final = msgspec.msgpack.Decoder(ToServer)


def encode(message: ToWorker | ToServer) -> bytes:
    """Return a message as bytes."""
    return _encoder.encode(message)


def for_worker(data: bytes) -> ToWorker:
    """Read a message of the server process."""
    message: ToWorker = _worker_decoder.decode(data)
    return message


def for_server(data: bytes) -> ToServer:
    """Read a message of a worker."""
    message: ToServer = _server_decoder.decode(data)
    return message


def listing(walk: Walk, total: Callable[[], int]) -> Ask:
    """Make the question for a page of a list: bounded work, however long the list is.

    Arguments: `start` the position to begin at, `skip` how many entries to pass over, `limit`
    how many to return, and whatever `walk` looks at. The answer: `items`, `skipped`, `next` the
    position to go on from (None at the end), `total` all entries without regard to arguments.
    """

    def page(arguments: Arguments) -> object:
        start, skip, limit = (int(arguments.get(key, 0)) for key in ("start", "skip", "limit"))
        items: list[object] = []
        skipped = 0
        position: int | None = start
        entries = walk(start, arguments)
        for _ in range(BUDGET):
            if skipped >= skip and len(items) >= limit:
                break
            found = next(entries, None)
            if found is None:
                position = None
                break
            position, entry = found
            if entry is None:
                continue
            if skipped < skip:
                skipped += 1
            else:
                items.append(entry)
        return {"items": items, "skipped": skipped, "next": position, "total": total()}

    return page
