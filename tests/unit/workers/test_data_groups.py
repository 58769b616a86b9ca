"""What a turn has gathered goes to each group together, and each who waits hears of his own."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec

from robustmq.errors import Refusal, Refused
from robustmq.message.session_record import SessionChange, SessionHead, Verdict
from robustmq.message.topic import stable_hash
from robustmq.meta import commands, data
from robustmq.meta.machine import Applied, Outcome
from robustmq.meta.records import Node
from robustmq.workers.data_groups import BATCH_BYTES, DataGroups

GROUPS = 3


class Link:
    """Keeps what is proposed, to be answered by hand."""

    def __init__(self) -> None:
        self.image = SimpleNamespace(nodes={1: Node(number=1, store="s", incarnation=4)})
        self.proposed: list[tuple[str, data.Batch, Callable[[Outcome], None]]] = []

    def propose(self, group: str, command: bytes, done: Callable[[Outcome], None]) -> None:
        batch = data._commands.decode(command)
        assert isinstance(batch, data.Batch)
        self.proposed.append((group, batch, done))


def groups() -> tuple[DataGroups, Link]:
    link: Any = Link()
    return DataGroups(1, GROUPS, link), link


def change(identity: str) -> SessionChange:
    return SessionChange(identity, 1, 7, 7, 0, SessionHead(True, 60, 0, 5))


def test_changes_of_a_turn_travel_together_by_group_and_each_hears_its_verdict() -> None:
    made, link = groups()
    heard: dict[str, Verdict] = {}
    names = [f"client {number}" for number in range(20)]
    for name in names:
        made.propose(change(name), lambda verdict, name=name: heard.update({name: verdict}))  # type: ignore[misc]
    assert not link.proposed
    made.flush()
    made.flush()
    assert len(link.proposed) == GROUPS
    for group, batch, done in link.proposed:
        assert (batch.node, batch.incarnation) == (1, 4)
        for each in batch.sessions:
            assert group == f"data_{stable_hash(each.identity.encode()) % GROUPS}"
        verdicts = [
            Verdict.DONE if int(each.identity.split()[1]) % 2 else Verdict.TAKEN
            for each in batch.sessions
        ]
        done(Applied(9, commands.done(msgspec.msgpack.encode(verdicts))))
    assert heard == {
        name: Verdict.DONE if int(name.split()[1]) % 2 else Verdict.TAKEN for name in names
    }


def test_of_what_is_refused_or_void_nothing_is_known() -> None:
    made, link = groups()
    heard: list[object] = []
    refused = Refused(Refusal.UNAVAILABLE, "no leader")
    outcomes: list[Outcome] = [refused, Applied(9, commands.refused(refused))]
    for outcome in outcomes:
        made.propose(change("a"), heard.append)
        made.retain(1, [(b"t", b"m")], lambda code, index: heard.append((code, index)))
        made.flush()
        while link.proposed:
            link.proposed.pop()[2](outcome)
    unavailable = (int(Refusal.UNAVAILABLE), 0)
    assert heard.count(Verdict.UNKNOWN) == 2
    assert heard.count(unavailable) == 2


def test_what_is_retained_goes_with_the_sessions_in_portions_and_says_where_it_is() -> None:
    made, link = groups()
    heard: list[tuple[int, int]] = []
    large = bytes(BATCH_BYTES)
    for topic, message in ((b"a", b"1"), (b"b", large), (b"c", None)):
        made.retain(2, [(topic, message)], lambda code, index: heard.append((code, index)))
    made.flush()
    rows = [[(row.topic, row.message) for row in batch.retained] for _, batch, _ in link.proposed]
    assert rows == [[(b"a", b"1"), (b"b", large)], [(b"c", None)]]
    assert {group for group, _, _ in link.proposed} == {"data_2"}
    for index, (_, _, done) in enumerate(link.proposed):
        done(Applied(30 + index, commands.DONE))
    assert heard == [(0, 30), (0, 30), (0, 31)]
