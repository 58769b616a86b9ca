"""The server process asks the meta process about the cluster, and for changes of its members."""

import asyncio
import itertools
import socket
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
    """The server process' end. `life` tells the answers to it from those to an earlier one."""

    def __init__(self, end: socket.socket, life: int) -> None:
        self.channel = Channel(end, self._blocked)
        # Beyond every number of an earlier life, whose answers may still come.
        self._numbers = itertools.count(life << 40)
        self._open: dict[int, asyncio.Future[Any]] = {}

    def start(self) -> None:
        """Listen, within the running loop."""
        asyncio.get_running_loop().add_reader(self.channel.fileno(), self._receive)

    async def ask(self, kind: str, arguments: dict[str, Any], seconds: float) -> Any:  # noqa: ANN401
        """Ask; raises ValueError with the sentence of a refusal, TimeoutError without an answer."""
        number = next(self._numbers)
        answer = self._open[number] = asyncio.get_running_loop().create_future()
        self.channel.send(encode(Asked(number, kind, arguments)))
        try:
            async with asyncio.timeout(seconds):
                return await answer
        finally:
            del self._open[number]

    def _receive(self) -> None:
        for data in self.channel.receive():
            found = _answered.decode(data)
            answer = self._open.get(found.number)
            if answer is None or answer.done():
                continue
            if found.error is not None:
                answer.set_exception(ValueError(found.error))
            else:
                answer.set_result(found.value)

    def _blocked(self) -> None:
        loop = asyncio.get_running_loop()

        def writable() -> None:
            loop.remove_writer(self.channel.fileno())
            self.channel.flush()

        loop.add_writer(self.channel.fileno(), writable)
