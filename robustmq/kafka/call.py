"""A request on its way: who asks what, and how it is answered, wherever it is handled."""

from collections.abc import Callable
from typing import Generic, TypeVar

from robustmq.broker.api import Principal
from robustmq.kafka.schema import Message

R = TypeVar("R")


class Call(Generic[R]):
    """One request, decoded, for a handler; `answer` is called once, now or later.

    `api` and `version` say which request it is, `client_id` what the client calls itself in its
    header (None: nothing), `listener` the listener that it came by, `size` the bytes of the
    request. `now_ms` is the turn's clock when it came.

    A request for a coordinator is handled by the core that coordinates (`coordination`): there
    `fault` is 0. Otherwise it is the error code that its handler answers, and does nothing else:
    another node coordinates, or the core that does is gone. `is_forwarded`: another core has
    decided that what it asks concerns this core, so that the handler asks nobody else.

    `hang_up(why)` ends the client's connection, which is all that can be said where nothing is
    answered.

    A handler that lets a call wait for what may come sets `abandoned`, which is called when the
    client is gone before the answer.
    """

    __slots__ = (
        "_reply",
        "abandoned",
        "api",
        "client_id",
        "fault",
        "hang_up",
        "is_forwarded",
        "listener",
        "now_ms",
        "principal",
        "request",
        "size",
        "version",
    )

    def __init__(  # noqa: PLR0917
        self,
        api: int,
        version: int,
        client_id: str | None,
        principal: Principal,
        request: R,
        now_ms: int,
        reply: Callable[[Message | None], None],
        *,
        listener: str = "",
        size: int = 0,
        fault: int = 0,
        is_forwarded: bool = False,
    ) -> None:
        self.api = api
        self.version = version
        self.client_id = client_id
        self.principal = principal
        self.request = request
        self.now_ms = now_ms
        self.listener = listener
        self.size = size
        self.fault = fault
        self.is_forwarded = is_forwarded
        self.abandoned: Callable[[], None] | None = None
        self.hang_up: Callable[[str], None] = _unsaid
        self._reply: Callable[[Message | None], None] | None = reply

    def answer(self, response: Message | None) -> None:
        """Answer with the API's response message; None: nothing is sent (Produce with acks=0).

        A second answer is our bug. If the client is gone meanwhile, nobody hears it.
        """
        reply, self._reply = self._reply, None
        assert reply is not None, "a call is answered once"
        reply(response)

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        self._reply = _unheard
        if self.abandoned is not None:
            self.abandoned()

    @property
    def is_answered(self) -> bool:
        """Say whether `answer` was called."""
        return self._reply is None


def _unsaid(_why: str) -> None:
    """There is no connection here."""


def _unheard(_response: Message | None) -> None:
    """Nobody is there any more."""
