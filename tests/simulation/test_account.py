"""What the simulation would find: promises are broken on purpose, and it must say so."""

from collections.abc import Callable

import pytest

from robustmq.broker.deposits import Deposits
from robustmq.broker.handovers import Handovers
from robustmq.broker.retained import Retained, RetainedRecord
from robustmq.broker.state import State
from robustmq.mqtt.connection import Connection
from robustmq.mqtt.last_will import LastWills
from robustmq.mqtt.publisher import Publisher
from robustmq.mqtt.session import Session
from robustmq.mqtt.session_rows import SessionRows
from robustmq.mqtt.session_table import SessionTable
from robustmq.storage.memory_table import MemoryTable
from tests.simulation.world import World

SEEDS = 250
"""Histories in which a fault has to be found."""

Break = Callable[[pytest.MonkeyPatch], None]


def acknowledge_early(patch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the disk is told at once."""

    def then(self: State, callback: Callable[[], None], refused: object = None) -> None:
        callback()

    patch.setattr(State, "then", then)


def drop_rows(patch: pytest.MonkeyPatch) -> None:
    """Runs that are owed are not written."""
    put = MemoryTable.put

    def forgetful(self: MemoryTable, key: bytes, value: bytes) -> None:
        if key[:1] != b"L":
            put(self, key, value)

    patch.setattr(MemoryTable, "put", forgetful)


def lose_handovers(patch: pytest.MonkeyPatch) -> None:
    """What a member's core is to take over never leaves the leader's."""
    patch.setattr(Handovers, "_leave", lambda *_: None)


def take_repeats(patch: pytest.MonkeyPatch) -> None:
    """A core takes what another sends once more."""
    patch.setattr(Deposits, "judge", lambda *_: None)


def forget_received(patch: pytest.MonkeyPatch) -> None:
    """The identifier of a QoS 2 message that was taken is not kept."""
    patch.setattr(SessionRows, "put_received", lambda *_: None)


def take_again(patch: pytest.MonkeyPatch) -> None:
    """A repeated QoS 2 message is taken as new."""

    def repeated(self: Publisher, packet_id: int, ticket: int) -> None:
        self._session.release(packet_id)

    patch.setattr(Publisher, "_repeated", repeated)


def keep_wills(patch: pytest.MonkeyPatch) -> None:
    """DISCONNECT does not take the will back."""
    detach = SessionTable.detach

    def willing(self: SessionTable, session: Session, with_will: bool) -> None:
        detach(self, session, True)

    patch.setattr(SessionTable, "detach", willing)


def lose_wills(patch: pytest.MonkeyPatch) -> None:
    """A will is never sent."""
    patch.setattr(LastWills, "_publish", lambda *_: None)


def lose_sessions(patch: pytest.MonkeyPatch) -> None:
    """A core that restarts knows no session."""
    patch.setattr(SessionTable, "restore", lambda *_: None)


def never_expire(patch: pytest.MonkeyPatch) -> None:
    """Sessions outlive their expiry."""
    patch.setattr("robustmq.mqtt.session_table._expires_ms", lambda _: None)


def retain_nothing_anew(patch: pytest.MonkeyPatch) -> None:
    """The first retained message of a topic stays."""
    put = Retained._put

    def first(self: Retained, record: RetainedRecord) -> bool:
        return self._topics.get(record.key) is None and put(self, record)

    patch.setattr(Retained, "_put", first)


def leave_rows(patch: pytest.MonkeyPatch) -> None:
    """The rows of a session that has ended stay."""
    patch.setattr(SessionRows, "erase", lambda *_: None)


def fail(patch: pytest.MonkeyPatch) -> None:
    """An error of ours is not hidden."""

    def broken(self: Connection) -> None:
        raise KeyError("an error of ours")

    patch.setattr(Connection, "lost", broken)


def found(most: int) -> str:
    """The first promise that is seen to be broken; nothing when none is."""
    for seed in range(most):
        faults = World(seed).run()
        if faults:
            return faults[0]
    return ""


@pytest.mark.parametrize(
    ("breaks", "wanted"),
    [
        (acknowledge_early, "lacks|again|after|session present|is not free|left"),
        (drop_rows, "lacks|was not sent|no member has|no rest"),
        (lose_handovers, "no member has|debts are left"),
        (take_repeats, "again|after"),
        (forget_received, "again"),
        (take_again, "again|no rest"),
        (keep_wills, "is void and was sent"),
        (lose_wills, "was not sent"),
        (lose_sessions, "session present False|was not sent|lacks|left"),
        (never_expire, "session present True|was not sent|left"),
        (retain_nothing_anew, "retains"),
        (leave_rows, "left|session present|was sent|early"),
    ],
)
def test_a_broken_promise_is_found(
    breaks: Break, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks(monkeypatch)
    what = found(SEEDS)
    assert any(part in what for part in wanted.split("|")), what


def test_an_error_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch)
    with pytest.raises(KeyError, match="an error of ours"):
        found(SEEDS)
