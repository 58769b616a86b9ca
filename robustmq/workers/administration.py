"""A worker's end of the administration: it answers questions, and says how far its image is."""

from collections.abc import Mapping
from typing import Any

from robustmq.net.channel import Channel
from robustmq.workers import log, questions
from robustmq.workers.meta_link import MetaLink
from robustmq.workers.questions import (
    Answer,
    Applied,
    Ask,
    Greeting,
    Hello,
    Notice,
    Question,
)

_log = log.EventLog("administration")


class Administration:
    """Answers in the turn in which a question is read; `answers` has the questions by kind."""

    def __init__(self, channel: Channel, epoch: int) -> None:
        self.answers: dict[str, Ask] = {}
        self._channel = channel
        self._epoch = epoch
        self._index: int | None = None

    def start(self) -> None:
        """Say that this life has begun: what waits for an earlier one is nobody's."""
        self._channel.send(questions.encode(Hello(self._epoch)))

    def follow(self, link: MetaLink) -> None:
        """Say how far the image of the metadata is here, after whoever hears of it already."""
        heard = link.applied

        def applied(index: int) -> None:
            heard(index)
            self.applied(index)

        link.applied = applied

    def applied(self, index: int) -> None:
        """Say that the image of the metadata has reached an index here."""
        self._index = index
        self._channel.send(questions.encode(Applied(index)))

    def notify(self, kind: str, value: Mapping[str, Any]) -> None:
        """Tell the server process something; it may be busy or starting, nobody waits."""
        self._channel.send(questions.encode(Notice(kind, dict(value))))

    def receive(self) -> None:
        """Take all that was said: call it when the channel is readable."""
        for data in self._channel.receive():
            message = questions.for_worker(data)
            if message.epoch != self._epoch:
                continue
            match message:
                case Question():
                    self._channel.send(questions.encode(self._answer(message)))
                case Greeting():
                    if self._index is not None:
                        self.applied(self._index)

    def _answer(self, question: Question) -> Answer:
        ask = self.answers.get(question.kind)
        if ask is None:
            return Answer(question.number, None, f"no worker answers {question.kind}")
        try:
            return Answer(question.number, ask(question.arguments))
        except ValueError as error:
            return Answer(question.number, None, str(error))
        except Exception:
            _log.error("a question failed", kind=question.kind)
            return Answer(question.number, None, f"{question.kind} failed: see the worker's log")
