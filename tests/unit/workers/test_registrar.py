"""A worker's way to the metadata: a change is answered when this worker knows it."""

from collections.abc import Callable, Collection

from robustmq.broker.catalog_api import Topic
from robustmq.errors import Refusal, Refused
from robustmq.meta import commands
from robustmq.meta.commands import Change
from robustmq.meta.image import Image
from robustmq.meta.machine import Applied, Outcome
from robustmq.meta.metadata import Metadata
from robustmq.meta.records import Record
from robustmq.workers.registrar import Registrar
from tests.catalogs import Group, Made
from tests.unit.meta.memory_store import MemoryStore


class Link:
    """The meta process: it answers before it tells what has changed, as it does at a turn's end."""

    def __init__(self) -> None:
        self.image = Image(lambda _record, _reason: None)
        self.applied: Callable[[int], None] = lambda _index: None
        self.metadata = Metadata(MemoryStore())
        self.metadata.on_applied = lambda index, records: self.told.append((index, [*records]))
        self.told: list[tuple[int, list[Record]]] = []
        self.refusal: Refused | None = None
        self.image.replace(0, [])

    def propose(self, group: str, command: bytes, done: Callable[[Outcome], None]) -> None:
        assert group == "metadata"
        assert isinstance(commands.decode(command), Change)
        if self.refusal is not None:
            done(self.refusal)
            return
        index = self.metadata.index + 1
        done(Applied(index, self.metadata.apply(index, command)))

    def tell(self) -> None:
        """Tell what has changed."""
        told, self.told = self.told, []
        for index, records in told:
            stamped = [Record(each.kind, each.name, each.value, index) for each in records]
            assert self.image.apply(index - 1, index, stamped)
            self.applied(index)


class Site:
    """A catalog that follows a link."""

    def __init__(self) -> None:
        self.link = Link()
        self.catalog = Made(Group()).catalog
        self.folded: list[set[str]] = []
        self.answers: list[Topic | Refused | None] = []
        registrar = Registrar(self.link, 5)  # type: ignore[arg-type]
        registrar.follow(self.catalog, self._folded)

    def _folded(self, kinds: Collection[str]) -> None:
        self.folded.append({*kinds})

    def create(self, name: str) -> None:
        self.catalog.create("default", name, 1, {}, self.answers.append)


def test_a_topic_is_answered_when_it_is_known_here() -> None:
    site = Site()
    site.create("a")
    assert site.answers == []
    site.link.tell()
    (made,) = site.answers
    assert made == site.catalog.find("default", "a")
    assert made is not None
    assert site.folded == [{"topic"}]
    assert isinstance(made, Topic)
    site.catalog.configure(made, {"retention.ms": "5"}, site.answers.append)
    site.link.tell()
    assert site.answers[1:] == [None]
    # What is known to be other than it was asked for is refused by the group.
    site.catalog.configure(site.catalog.of(b"a") or made, {}, site.answers.append)
    site.catalog.configure(site.catalog.of(b"a") or made, {}, site.answers.append)
    site.link.tell()
    refused, done = site.answers[2:]
    assert (isinstance(refused, Refused) and refused.code, done) == (Refusal.CONFLICT, None)


def test_what_is_refused_is_answered_at_once() -> None:
    site = Site()
    site.link.refusal = Refused(Refusal.UNAVAILABLE, "nobody leads")
    site.create("a")
    assert site.answers == [site.link.refusal]
    site.link.refusal = None
    for name in "abcdef":
        site.create(name)
        site.link.tell()
    last = site.answers[-1]
    assert isinstance(last, Refused)
    assert last.code is Refusal.QUOTA_EXCEEDED
