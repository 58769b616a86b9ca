"""The server process asks the meta process about the cluster, and for changes of its members."""

import asyncio
import itertools
from typing import Any, Final

import msgspec
from msgspec import Struct

from robustmq.net.channel import Channel


class Asked(Struct, tag=True, array_like=True):
    """For the meta process: answer `kind` from `arguments`."""

    number: int
    kind: str
    arguments: dict[str, Any]


class Answered(Struct, tag=True, array_like=True):
    """Its answer; `error` is a sentence, None when all went well."""

    number: int
    value: Any = None
    error: str | None = None


_encoder: Final = msgspec.msgpack.Encoder()
_asked: Final = msgspec.msgpack.Decoder(Asked)
_answered: Final = msgspec.msgpack.Decoder(Answered)


def encode(message: Asked | Answered) -> bytes:
    """Return a message as bytes."""
    return _encoder.encode(message)


def asked(data: bytes) -> Asked | None:
    """Read a question about the cluster; None when the message is something else."""
    return _asked.decode(data) if data[1:7] == b"\xa5Asked" else None


class ClusterDesk:
    """The server process' end. `life` tells the answers to it from those to an earlier one.

    `take` must be given what comes on the channel.
    """

    def __init__(self, channel: Channel, life: int) -> None:
        self._channel = channel
        # Beyond every number of an earlier life, whose answers may still come.
        self._numbers = itertools.count(life << 40)
        self._open: dict[int, asyncio.Future[Any]] = {}

    async def ask(self, kind: str, arguments: dict[str, Any], seconds: float) -> Any:  # noqa: ANN401
        """Ask; raises ValueError with the sentence of a refusal, TimeoutError without an answer."""
        number = next(self._numbers)
        answer = self._open[number] = asyncio.get_running_loop().create_future()
        self._channel.send(encode(Asked(number, kind, arguments)))
        try:
            async with asyncio.timeout(seconds):
                return await answer
        finally:
            del self._open[number]

    def take(self, data: bytes) -> bool:
        """Take a message of the meta process; False when it is no answer."""
        if data[1:10] != b"\xa8Answered":
            return False
        found = _answered.decode(data)
        answer = self._open.get(found.number)
        if answer is not None and not answer.done():
            if found.error is not None:
                answer.set_exception(ValueError(found.error))
            else:
                answer.set_result(found.value)
        return True
