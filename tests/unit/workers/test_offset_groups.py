"""The ledger of coordinators, over real channels to a meta process with its offset groups."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from robustmq.broker.ledger_api import Kept, Ledger, Page
from robustmq.errors import Refusal, Refused
from robustmq.workers import meta_link, offset_groups
from robustmq.workers.meta_link import MetaLink
from robustmq.workers.offset_groups import IDS, OffsetGroups
from tests.unit.workers.test_feed import Node

GROUPS = 2


class Desk:
    """A core with a ledger, whose answers are kept."""

    def __init__(self, node: Node, endpoint: int) -> None:
        self.node = node
        self.link: MetaLink = node.link(endpoint)
        self.made = OffsetGroups(GROUPS, self.link)

    @property
    def ledger(self) -> Ledger:
        return self.made

    def ask(self, *questions: Callable[[Callable[[Any], None]], None]) -> list[Any]:
        """Ask all in one turn; return the answers, each of which came once."""
        answers: list[list[Any]] = [[] for _ in questions]
        for question, found in zip(questions, answers, strict=True):
            question(found.append)
        self.made.flush()
        self.node.turn(self.link)
        assert all(len(found) == 1 for found in answers)
        return [found[0] for found in answers]


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.close()


def test_pages_are_written_and_read_and_a_second_writer_is_refused(node: Node) -> None:
    one, other = Desk(node, 0), Desk(node, 1)
    keys = [f"group/default/{number}" for number in range(20)]
    assert one.ask(lambda reply: one.ledger.read(keys[0], reply)) == [Page()]
    versions = one.ask(
        *(lambda reply, key=key: one.ledger.write(key, key.encode(), 0, reply) for key in keys)
    )
    assert all(version > 0 for version in versions)
    # All deeds of a turn were one proposal for each group.
    assert node.groups.index == GROUPS
    assert other.ask(lambda reply: other.ledger.read(keys[3], reply)) == [
        Page(versions[3], keys[3].encode())
    ]
    (refused,) = other.ask(lambda reply: other.ledger.write(keys[3], b"mine", 0, reply))
    assert isinstance(refused, Refused)
    assert refused.code is Refusal.CONFLICT
    (version,) = other.ask(lambda reply: other.ledger.write(keys[3], b"", versions[3], reply))
    (gone,) = one.ask(lambda reply: one.ledger.commit(keys[3], versions[3], {"a": Kept(1)}, reply))
    assert gone.code is Refusal.CONFLICT
    assert one.ask(lambda reply: one.ledger.read(keys[3], reply)) == [Page(version, b"")]


def test_offsets_are_committed_and_read_and_erased(node: Node) -> None:
    desk = Desk(node, 0)
    kept = {f"t/{number}": Kept(number, "note", 5, 2) for number in range(700)}
    commit = {"gone": Kept(1), **kept}
    assert desk.ask(lambda reply: desk.ledger.commit("g", 0, commit, reply)) == [None]
    assert desk.ask(lambda reply: desk.ledger.commit("g", 0, {"gone": None}, reply)) == [None]
    assert desk.ask(lambda reply: desk.ledger.offsets("g", reply)) == [kept]
    assert desk.ask(lambda reply: desk.ledger.erase("g", 0, reply)) == [None]
    assert desk.ask(lambda reply: desk.ledger.offsets("g", reply)) == [{}]


def test_keys_of_all_groups_are_listed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meta_link, "PAGE_ROWS", 3)
    desk = Desk(node, 0)
    keys = [f"txn/default/{number}" for number in range(20)]
    desk.ask(*(lambda reply, key=key: desk.ledger.write(key, b"", 0, reply) for key in keys))
    (found,) = desk.ask(lambda reply: desk.ledger.keys("txn/", reply))
    assert sorted(found) == sorted(keys)
    assert desk.ask(lambda reply: desk.ledger.keys("group/", reply)) == [[]]


def test_producer_ids_are_drawn_by_blocks_and_never_twice(node: Node) -> None:
    one, other = Desk(node, 0), Desk(node, 1)
    blocks = [*one.ask(one.ledger.producer_ids, one.ledger.producer_ids)]
    blocks += other.ask(other.ledger.producer_ids)
    assert sorted(number for block in blocks for number in block) == [*range(3 * IDS)]


def test_a_large_turn_travels_in_several_batches(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offset_groups, "BATCH_BYTES", 1_000)
    desk = Desk(node, 0)
    big = bytes(600)
    desk.ask(*(lambda reply, n=n: desk.ledger.write(f"{n}", big, 0, reply) for n in range(10)))
    assert node.groups.index >= 5


def test_who_asks_while_nobody_answers_is_refused_in_time(node: Node) -> None:
    desk = Desk(node, 0)
    answers: list[Any] = []
    desk.ledger.write("k", b"", 0, answers.append)
    desk.ledger.read("k", answers.append)
    desk.ledger.producer_ids(answers.append)
    desk.made.flush()
    node.now_ms += 1_000
    desk.link.expire()
    assert [each.code for each in answers] == [Refusal.UNAVAILABLE] * 3
