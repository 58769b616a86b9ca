"""A worker's end of the administration: it answers questions, and applies the node's records."""

from collections.abc import Mapping
from typing import Any, Protocol

from robustmq.net.channel import Channel
from robustmq.workers import log, questions
from robustmq.workers.questions import Answer, Applied, Ask, Change, Hello, Image, Notice, Question

_log = log.EventLog("administration")


class Folded(Protocol):
    """What a kind of node records becomes on a core."""

    def clear(self) -> None:
        """Forget all: the records follow."""

    def apply(self, name: str, value: dict[str, Any] | None) -> None:
        """Learn that a record is new or other, or with None that it is gone."""


class Administration:
    """Answers in the turn in which a question is read.

    `answers` has the questions by kind, `records` who applies which kind of record.
    """

    def __init__(self, channel: Channel, epoch: int) -> None:
        self.answers: dict[str, Ask] = {}
        self.records: dict[str, Folded] = {}
        self._channel = channel
        self._epoch = epoch
        self._version: int | None = None

    @property
    def is_informed(self) -> bool:
        """Whether the node's records are known here."""
        return self._version is not None

    def start(self) -> None:
        """Ask for the records: `is_informed` when they have been read."""
        self._channel.send(questions.encode(Hello(self._epoch)))

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
                case Image():
                    self._replace(message)
                case Change():
                    self._change(message)

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

    def _replace(self, image: Image) -> None:
        if self._version is not None and image.version < self._version:
            return
        for folded in self.records.values():
            folded.clear()
        self._apply(image)
        self._version = image.version
        self._channel.send(questions.encode(Applied(image.version)))

    def _change(self, change: Change) -> None:
        if self._version is None or change.version <= self._version:
            return
        if change.version != self._version + 1:
            # Something is missing in between.
            self.start()
            return
        self._apply(change)
        self._version = change.version
        self._channel.send(questions.encode(Applied(change.version)))

    def _apply(self, message: Image | Change) -> None:
        for record in message.records:
            folded = self.records.get(record.kind)
            if folded is None:
                continue
            try:
                folded.apply(record.name, record.value)
            except ValueError as error:
                # Written by a newer version, or by hand: the others hold nevertheless.
                _log.warning(
                    "a record is not applied",
                    kind=record.kind,
                    name=record.name,
                    reason=str(error),
                )
