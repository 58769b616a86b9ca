"""Rows of sessions: who may change them, and what a change makes of them."""

import msgspec
import pytest

from robustmq.message.session_record import (
    SessionChange,
    SessionHead,
    SessionRecord,
    SubscriptionRecord,
    Verdict,
    WillRecord,
    changed,
    judge,
)

HEAD = SessionHead(True, 60, 0, 5)
A = SubscriptionRecord(b"a", 1)
B = SubscriptionRecord(b"b", 2, b"\x0b\x07")


def row(owner: int = 1, generation: int = 5, revision: int = 7) -> SessionRecord:
    return SessionRecord("c", owner, generation, revision, HEAD, [A])


def change(
    owner: int, generation: int, revision: int = 9, takes: int | None = None
) -> SessionChange:
    return SessionChange("c", owner, generation, revision, takes, HEAD)


@pytest.mark.parametrize(
    ("before", "wanted", "verdict"),
    [
        (None, change(1, 5, takes=0), Verdict.DONE),
        (None, change(1, 5), Verdict.GONE),
        (None, change(1, 5, takes=4), Verdict.GONE),
        (row(), change(1, 5), Verdict.DONE),
        (row(), change(1, 4), Verdict.TAKEN),
        (row(), change(2, 5), Verdict.TAKEN),
        (row(), change(2, 6, takes=5), Verdict.DONE),
        (row(), change(2, 6, takes=4), Verdict.TAKEN),
        (row(), change(2, 6, takes=0), Verdict.TAKEN),
        (row(), change(1, 6, takes=0), Verdict.DONE),
        (row(), change(1, 4, takes=0), Verdict.TAKEN),
        (row(2, 6), change(2, 6, takes=5), Verdict.DONE),
    ],
)
def test_who_may_change_a_row(
    before: SessionRecord | None, wanted: SessionChange, verdict: Verdict
) -> None:
    assert judge(before, wanted) is verdict


def test_a_change_adds_and_takes_away() -> None:
    wanted = SessionChange("c", 1, 5, 8, None, HEAD, [B], [b"a"])
    assert changed(row(), wanted) == SessionRecord("c", 1, 5, 8, HEAD, [B])


def test_a_whole_change_leaves_nothing_of_before() -> None:
    wanted = SessionChange("c", 2, 6, 8, 5, HEAD, [B], whole=True)
    assert changed(row(), wanted) == SessionRecord("c", 2, 6, 8, HEAD, [B])


def test_an_adoption_keeps_the_subscriptions() -> None:
    assert changed(row(), change(2, 6, takes=5)) == SessionRecord("c", 2, 6, 9, HEAD, [A])


def test_what_is_repeated_or_late_changes_nothing() -> None:
    assert changed(row(), SessionChange("c", 1, 5, 7, None, HEAD, [B])) == row()
    assert changed(row(), SessionChange("c", 1, 5, 6)) == row()


def test_a_change_without_a_head_ends_the_session() -> None:
    assert changed(row(), SessionChange("c", 1, 5, 8)) is None


def test_rows_and_changes_come_back_from_bytes() -> None:
    will = WillRecord(b"t", b"p", 1, True, b"")
    whole = row()
    whole.head = SessionHead(False, 0, 12, 4, "user", will)
    data = msgspec.msgpack.encode(whole)
    assert msgspec.msgpack.decode(data, type=SessionRecord) == whole
    wanted = SessionChange("c", 1, 5, 8, None, HEAD, [A, B], [b"x"], True)
    data = msgspec.msgpack.encode(wanted)
    assert msgspec.msgpack.decode(data, type=SessionChange) == wanted
