"""Retained messages page by page: what is waited for, what is left out, and never one twice."""

from array import array

import pytest

from robustmq._kernel.batch import BatchBuilder, records
from robustmq._kernel.turn import Turn
from robustmq.broker import frames
from robustmq.broker.api import Options
from robustmq.broker.frames import Kind
from robustmq.broker.retained import Retained
from robustmq.broker.retained_scans import RetainedScans
from robustmq.broker.router import EPOCH_SHIFT
from robustmq.broker.state import State
from robustmq.message.record import EXPIRES_AT, NO_HEADERS, RETAIN_BIT, header_block
from robustmq.metrics import CELLS, RETAINED_MESSAGES
from robustmq.settings.mqtt import MqttRetained
from robustmq.storage.memory_table import MemoryTable
from tests.books import check_books
from tests.fabric import START_MS, Answer, Client, Fabric, Limits
from tests.unit.broker.links import kinds, topic_of, under_way

WORKERS = 3


class OneCore:
    """The retained messages of core 0 among three, and what it sends; as its own fabric."""

    def __init__(self) -> None:
        self.turn = Turn(array("Q", bytes(8 * CELLS)))
        self.turn.now_ms = START_MS
        self.retained = Retained(State(MemoryTable()), MqttRetained(), self.turn.row)
        self.sent: list[tuple[int, bytes]] = []
        self.backlogs = [0] * WORKERS
        self.epochs = [1] * WORKERS
        self.scans = RetainedScans(
            self.turn,
            core=0,
            retained=self.retained,
            fabric=self,
            max_batch_bytes=1_000,
            pressure_bytes=1_000,
            workers=WORKERS,
        )
        self.scans.receive_here = lambda frame: self.send(0, frame)

    def send(self, core: int, frame: bytes) -> None:
        self.sent.append((core, frame))

    def backlog(self, core: int) -> int:
        return self.backlogs[core]

    def epoch(self, core: int) -> int:
        return self.epochs[core]

    def retain(
        self, topic: str, payload: str, source: int, position: int, headers: bytes = NO_HEADERS
    ) -> None:
        """What a RETAIN of another core does."""
        builder = BatchBuilder(Turn(self.turn.row), 0, 1 << 20, None)
        builder.append(topic.encode(), payload.encode(), headers, RETAIN_BIT, START_MS)
        self.retained.apply(builder.take()[0], source, position)
        self.scans.arrived(source, position)

    def answers(self) -> list[tuple[int, int, bool, list[str]]]:
        """What one run sends: (core, call, last, payloads)."""
        self.scans.run()
        found = []
        for core, frame in self.sent:
            call, last, batch = frames.read_retained(frame)
            values = [value or b"" for *_, value, _ in records(batch)] if batch else []
            found.append((core, call, last, [value.decode() for value in values]))
        self.sent.clear()
        return found


def at(epoch: int, number: int) -> int:
    """The position of the `number`th that a core has retained in one of its lives."""
    return (epoch << EPOCH_SHIFT) + number


def everything(epoch: int = 1) -> list[tuple[int, int]]:
    """Up to any position of a life, and nothing to wait for."""
    return [(at(epoch + 1, 0) - 1, 0)] * WORKERS


# -------------------------------------------------------------------- what is waited for


def test_a_scan_waits_for_what_is_on_its_way() -> None:
    core = OneCore()
    core.retain("a", "old", 1, at(1, 1))
    core.scans.ask(2, 7, [(at(1, 0), 0), (at(1, 2), at(1, 2)), (at(1, 0), 0)], b"a")
    busy = [core.scans.busy]
    assert core.answers() == []
    core.retain("a", "new", 1, at(1, 2))
    busy.append(core.scans.busy)
    assert core.answers() == [(2, 7, True, ["new"])]
    busy.append(core.scans.busy)
    assert core.answers() == []
    assert busy == [False, True, False]


def test_what_has_expired_is_not_found_though_nobody_has_removed_it() -> None:
    core = OneCore()
    expires = header_block([(EXPIRES_AT, START_MS.to_bytes(8, "big"))])
    for number in range(1_500):
        core.retain(f"a/{number}", "old", 1, at(1, number), expires)
    core.retain("b", "new", 1, at(1, 1_500))
    core.retained.expire(START_MS, 1_000)
    core.scans.ask(2, 7, everything(), b"#")
    assert core.answers() == [(2, 7, True, ["new"])]


def test_a_scan_waits_for_each_core() -> None:
    core = OneCore()
    core.scans.ask(2, 7, [(at(1, 9), 0), (at(1, 9), at(1, 1)), (at(1, 9), at(1, 3))], b"#")
    core.retain("a", "1", 1, at(1, 1))
    core.retain("b", "2", 2, at(1, 2))
    assert core.answers() == []
    core.retain("c", "3", 2, at(1, 3))
    assert core.answers() == [(2, 7, True, ["1", "2", "3"])]


def test_a_word_about_the_position_is_as_good_as_a_message() -> None:
    core = OneCore()
    core.scans.ask(1, 7, [(at(1, 9), 0), (at(1, 9), at(1, 4)), (at(1, 9), 0)], b"#")
    core.scans.arrived(1, at(1, 3))
    assert core.answers() == []
    core.scans.arrived(1, at(1, 6))
    assert core.answers() == [(1, 7, True, [])]


def test_a_core_that_died_is_not_waited_for() -> None:
    core = OneCore()
    core.scans.ask(2, 7, [(at(1, 9), 0), (at(1, 9), at(1, 4)), (at(1, 9), 0)], b"#")
    core.epochs[2] = 2
    assert core.answers() == []
    core.epochs[1] = 2
    assert core.answers() == [(2, 7, True, [])]


def test_one_that_waits_does_not_hold_up_others() -> None:
    core = OneCore()
    core.retain("a", "x", 1, at(1, 1))
    core.scans.ask(1, 1, [(at(1, 9), at(1, 1)), (at(1, 9), 0), (at(1, 9), 0)], b"a")
    core.scans.ask(1, 2, everything(), b"a")
    assert core.answers() == [(1, 2, True, ["x"])]
    core.scans.arrived(0, at(1, 1))
    assert core.answers() == [(1, 1, True, ["x"])]


# -------------------------------------------------------------------- what is left out


def test_what_was_published_after_the_subscription_is_left_out_core_by_core() -> None:
    core = OneCore()
    for source in range(WORKERS):
        for number in (1, 2, 3):
            core.retain(f"{source}/{number}", f"{source}{number}", source, at(1, number))
    core.scans.ask(1, 7, [(at(1, 1), 0), (at(1, 3), 0), (at(1, 0), 0)], b"#")
    ((_, _, last, values),) = core.answers()
    assert last
    assert sorted(values) == ["01", "11", "12", "13"]


def test_what_an_earlier_life_of_a_core_retained_is_given() -> None:
    core = OneCore()
    core.retain("a", "of the first life", 1, at(1, 500))
    core.retain("b", "before", 1, at(2, 1))
    core.retain("c", "after", 1, at(2, 2))
    core.scans.ask(2, 7, [(0, 0), (at(2, 1), 0), (0, 0)], b"#")
    assert core.answers() == [(2, 7, True, ["of the first life", "before"])]


def test_what_is_replaced_by_a_message_that_is_heard_live_is_not_given() -> None:
    core = OneCore()
    core.retain("a", "before", 1, at(1, 1))
    core.retain("a", "live", 2, at(1, 1))
    core.scans.ask(1, 7, [(0, 0), (at(1, 1), 0), (at(1, 0), 0)], b"a")
    assert core.answers() == [(1, 7, True, [])]


# -------------------------------------------------------------------- pages, turns, ends


def test_pages_are_within_the_limit_and_the_last_one_says_so() -> None:
    core = OneCore()
    for number in range(50):
        core.retain(f"t/{number}", "x" * 100, 1, at(1, number + 1))
    core.scans.ask(2, 7, everything(), b"t/+")
    pages = []
    while core.scans.busy:
        (page,) = core.answers()
        pages.append(page)
    assert [last for _, _, last, _ in pages] == [False] * (len(pages) - 1) + [True]
    assert sum(len(values) for *_, values in pages) == 50
    assert all(len(values) <= 1_000 // 100 for *_, values in pages)


def test_a_core_that_is_behind_gets_no_page_until_half_is_relieved() -> None:
    core = OneCore()
    core.retain("a", "x", 1, at(1, 1))
    for source in (1, 2):
        core.scans.ask(source, source, everything(), b"a")
    core.backlogs[1] = 501
    assert core.answers() == [(2, 2, True, ["x"])]
    busy = [core.scans.busy]
    core.backlogs[1] = 500
    busy.append(core.scans.busy)
    assert core.answers() == [(1, 1, True, ["x"])]
    assert busy == [False, True]


def test_the_questions_of_a_core_that_was_replaced_are_void() -> None:
    core = OneCore()
    core.retain("a", "x", 1, at(1, 1))
    for source in (1, 2, 1):
        core.scans.ask(source, source, everything(), b"a")
    core.scans.drop_core(1)
    assert core.answers() == [(2, 2, True, ["x"])]


def test_a_core_answers_itself_without_a_link() -> None:
    core = OneCore()
    heard: list[bytes] = []
    core.scans.receive_here = heard.append
    core.retain("a", "x", 0, at(1, 1))
    core.scans.ask(0, 7, everything(), b"a")
    assert core.answers() == []
    assert [frames.read_retained(frame)[:2] for frame in heard] == [(7, True)]


def test_wildcards_take_turns_and_exact_filters_share_one() -> None:
    core = OneCore()
    core.retain("a", "x", 1, at(1, 1))
    for call in (1, 2):
        core.scans.ask(1, call, everything(), b"#")
    for call in (3, 4, 5):
        core.scans.ask(1, call, everything(), b"a")
    found = [[call for _, call, _, _ in core.answers()] for _ in range(3)]
    assert found == [[1], [2], [3, 4, 5]]


def test_messages_whose_time_has_come_go_with_the_turn() -> None:
    core = OneCore()
    headers = header_block([(EXPIRES_AT, (START_MS + 5).to_bytes(8, "big"))])
    for number in range(2_500):
        core.retain(str(number), "x", 1, at(1, number + 1), headers)
    left = []
    for now_ms in (4, 5, 5, 5):
        core.turn.now_ms = START_MS + now_ms
        core.scans.run()
        left.append(core.turn.row[RETAINED_MESSAGES])
    assert left == [2_500, 1_500, 500, 0]


# -------------------------------------------------------------------- over cores


def test_retained_pages_wait_for_a_core_that_is_behind() -> None:
    fabric = Fabric(2, limits=Limits(max_batch_bytes=500, pressure_bytes=2_000))
    for number in range(200):
        fabric.nodes[0].publish(f"t/{number}", "x" * 100, 0, True)
        fabric.settle()
    client = fabric.nodes[0].client()
    client.subscribe("t/+", retained=True)
    for index in (0, 1, 0):
        fabric.turn(index)
    assert client.subacks == 1
    fabric.stalled = {(1, 0)}
    for _ in range(100):
        fabric.turn(1)
    assert not fabric.nodes[1].core.busy
    assert 1_000 < fabric.nodes[1].links.backlog(0) < 3_000
    fabric.stalled.clear()
    fabric.settle()
    assert len(client.payloads) == 200
    check_books(fabric)


def test_exact_filters_share_a_turn() -> None:
    fabric = Fabric(2)
    topic = topic_of(fabric, 1)
    fabric.nodes[1].publish(topic, "x", 1, True)
    fabric.settle()
    clients = [fabric.nodes[0].client() for _ in range(50)]
    for client in clients:
        client.subscribe(topic, Options(1), True)
    for index in (0, 1, 0, 1):
        fabric.turn(index)
    assert kinds(fabric, 1, 0) == [Kind.RETAINED] * 50
    fabric.settle()
    assert all(client.payloads == ["x"] for client in clients)


def test_a_filter_that_matches_nothing_retained_ends_too() -> None:
    fabric = Fabric(2)
    for core in range(2):
        fabric.nodes[0].publish(topic_of(fabric, core), "x", 1, True)
    fabric.settle()
    client = fabric.nodes[0].client()
    client.subscribe("other/+", retained=True)
    fabric.settle()
    assert client.subacks == 1
    assert client.payloads == []
    check_books(fabric)


def once(client: Client, payload: str) -> bool:
    """Has the client heard a message exactly once? Says whether it was a retained one."""
    heard = [message for message in client.messages if message.payload == payload.encode()]
    assert [payload] == [message.payload.decode() for message in heard]
    return heard[0].retain


@pytest.mark.parametrize("topic_filter", ["t/+", "exact"])
@pytest.mark.parametrize("turns", range(12))
def test_a_message_is_retained_or_live_but_never_both_nor_lost(
    topic_filter: str, turns: int
) -> None:
    # Core 0 publishes, core 1 keeps what is retained, the subscriber is on core 2.
    fabric = Fabric(3)
    topic = topic_of(fabric, 1)
    client = fabric.nodes[2].client()
    client.subscribe(topic if topic_filter == "exact" else topic_filter, retained=True)
    order = [2, 0, 1, 2, 1, 0, 2, 0, 1, 2, 1, 0][:turns]
    for index in order:
        fabric.turn(index)
    fabric.stalled = {(0, 1)}
    fabric.nodes[0].publish(topic, "x", 1, True)
    fabric.turn(0)
    fabric.settle()
    fabric.stalled.clear()
    fabric.settle()
    client.read()
    # Once core 2 has told core 0 of the subscription, what that appends is live.
    assert once(client, "x") is (turns == 0)
    check_books(fabric)


def on_its_way(fabric: Fabric) -> tuple[str, Answer]:
    """Retain "x" on core 0 for core 1, which does not get it; returns its topic and the answer."""
    topic = topic_of(fabric, 1)
    fabric.stalled = {(0, 1)}
    answer = fabric.nodes[0].publish(topic, "x", 1, True)
    fabric.settle()
    return topic, answer


def asking(fabric: Fabric, topic: str) -> Client:
    """A client of core 2 that subscribes and wants what is retained."""
    client = fabric.nodes[2].client()
    client.subscribe(topic, retained=True)
    fabric.settle()
    return client


def test_what_is_on_its_way_to_the_core_that_keeps_it_is_waited_for() -> None:
    fabric = Fabric(3)
    topic, answer = on_its_way(fabric)
    client = asking(fabric, topic)
    # All cores know of the subscription, and one has yet to hear what it shall keep.
    assert (client.subacks, client.payloads, answer.got) == (1, [], [])
    assert not fabric.nodes[1].core.busy
    assert len(fabric.nodes[1].scans._scans) == 1
    fabric.stalled.clear()
    fabric.settle()
    client.read()
    assert once(client, "x")
    assert answer.got == [(0, False)]
    check_books(fabric)


def test_a_publisher_that_dies_with_what_was_on_its_way_is_not_waited_for() -> None:
    fabric = Fabric(3)
    topic, _ = on_its_way(fabric)
    client = asking(fabric, topic)
    assert client.subacks == 1
    fabric.replace(0)
    fabric.stalled.clear()
    fabric.settle()
    assert client.payloads == []
    check_books(fabric)


def test_a_keeper_that_dies_with_what_was_on_its_way_gets_it_again() -> None:
    fabric = Fabric(3)
    topic, answer = on_its_way(fabric)
    fabric.replace(1)
    client = asking(fabric, topic)
    fabric.stalled.clear()
    fabric.settle()
    client.read()
    assert once(client, "x")
    assert answer.got == [(0, False)]
    check_books(fabric)


def test_what_a_keeper_has_on_its_disk_survives_it() -> None:
    fabric = Fabric(3)
    topic = topic_of(fabric, 1)
    fabric.nodes[0].publish(topic, "on the disk of core 1", 1, True)
    fabric.settle()
    fabric.replace(1)
    client = asking(fabric, topic)
    assert (client.subacks, client.payloads) == (1, ["on the disk of core 1"])
    fabric.nodes[0].publish(topic, "new", 1, True)
    fabric.settle()
    assert client.payloads == ["on the disk of core 1", "new"]
    check_books(fabric)


def test_a_subscriber_that_asks_twice_gets_what_is_retained_twice() -> None:
    fabric = Fabric(2)
    topic = topic_of(fabric, 1)
    fabric.nodes[0].publish(topic, "x", 1, True)
    fabric.settle()
    client = fabric.nodes[0].client()
    for _ in range(2):
        client.subscribe(topic, retained=True)
        fabric.settle()
    assert client.payloads == ["x", "x"]
    assert not under_way(fabric, 1, 0, Kind.RETAINED)
    check_books(fabric)
