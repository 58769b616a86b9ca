"""A worker's way to the metadata: what it folds of topics, and what it has changed there."""

import uuid
from collections.abc import Callable, Collection, Sequence

from robustmq.broker.catalog import Catalog
from robustmq.broker.catalog_api import Topic
from robustmq.broker.parts import Parts
from robustmq.errors import Refusal, Refused
from robustmq.meta import commands
from robustmq.meta.commands import Change, Expectation
from robustmq.meta.machine import Applied, Outcome
from robustmq.meta.records import GRANT, NODE, SHARD, TOPIC, Record, check
from robustmq.mqtt.protocol import Mqtt
from robustmq.workers.meta_link import MetaLink

METADATA = "metadata"


class Registrar:
    """A `broker.catalog.Registrar`; `most` records may the cluster have after a change."""

    def __init__(self, link: MetaLink, most: int) -> None:
        self._link = link
        self._most = most
        self._waiting: list[tuple[int, Callable[[], None]]] = []

    def follow(self, catalog: Catalog, folded: Callable[[Collection[str]], None]) -> None:
        """Have a catalog be as the image says, before anybody else hears of a change.

        `folded(kinds)` is called when records of these kinds have been folded.
        """
        catalog.registrar = self
        image = self._link.image
        image.folds[TOPIC] = catalog
        image.folds[SHARD] = catalog.leaders
        heard, applied = image.changed, self._link.applied

        def changed(kinds: Collection[str]) -> None:
            if NODE in kinds:
                catalog.leaders.nodes = image.nodes
            catalog.settle()
            if {NODE, SHARD} & {*kinds}:
                catalog.leaders.settle()
            folded(kinds)
            heard(kinds)

        def reached(index: int) -> None:
            applied(index)
            self._reached(index)

        image.changed = changed
        self._link.applied = reached

    def change(
        self,
        records: Sequence[Record],
        expected: Sequence[Expectation],
        done: Callable[[Refused | None], None],
    ) -> None:
        """See `broker.catalog.Registrar`."""

        def answered(outcome: Outcome) -> None:
            if not isinstance(outcome, Applied):
                done(outcome)
                return
            result = commands.outcome(outcome.result)
            if isinstance(result, Refused):
                done(result)
            elif (self._link.image.index or 0) >= outcome.position:
                done(None)
            else:
                self._waiting.append((outcome.position, lambda: done(None)))

        wrong = next((sentence for each in records if (sentence := check(each))), None)
        if wrong is not None:
            done(Refused(Refusal.PAYLOAD_INVALID, wrong))
            return
        command = Change([*records], [*expected], self._most)
        self._link.propose(METADATA, commands.encode(command), answered)

    def new_id(self) -> bytes:
        """See `broker.catalog.Registrar`."""
        return uuid.uuid4().bytes

    def _reached(self, index: int) -> None:
        ready = [callback for wanted, callback in self._waiting if wanted <= index]
        if ready:
            self._waiting = [each for each in self._waiting if each[0] > index]
            for callback in ready:
                callback()


def follow_topics(link: MetaLink, parts: Parts, mqtt: Mqtt, most: int) -> Registrar:
    """Let a core know the topics of its cluster; what it has decided by older ones is void."""

    def changed(_name: bytes, before: Topic | None, after: Topic | None) -> None:
        limits = [
            topic is not None and topic.rule.max_message_bytes > 0 for topic in (before, after)
        ]
        if any(limits):
            mqtt.forget_routes()

    def regranted() -> None:
        access.forget()
        mqtt.permissions_changed()

    access = parts.admission.access
    access.grants.changed = regranted
    registrar = Registrar(link, most)
    parts.catalog.changed.append(changed)

    def folded(kinds: Collection[str]) -> None:
        access.grants.settle()
        if {NODE, SHARD} & {*kinds}:
            parts.interests.decide_anew()
            parts.partitions.moved()

    link.image.folds[GRANT] = access.grants
    registrar.follow(parts.catalog, folded)
    return registrar
