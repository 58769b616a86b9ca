"""What shared groups are owed on its way to other leaders, row by row."""

from robustmq._kernel.batch import records
from robustmq.broker.handovers import LEADER, Handover
from robustmq.broker.placement import Placement
from robustmq.message.batch import HEADER
from tests.unit.broker.test_relocation import batch, client_on, log_row, moved, once, session, u64

KEY = b"g\0s/+"
GROUP = b"F\0g" + KEY
MEMBER = b"F\0m" + u64(7) + KEY


def on_its_way(epoch: int, number: int, core: int, member: int, what: bytes) -> dict[bytes, bytes]:
    key = b"A" + epoch.to_bytes(4, "big") + u64(number)
    return {key: Handover(core, member, KEY, what).encode()}


def payloads(rows: dict[bytes, bytes], name: bytes) -> list[bytes]:
    """What lies in the log that a row `F` names, in order."""
    log = rows[name]
    return [
        record[4] or b""
        for key, value in sorted(rows.items())
        if key[:1] == b"L" and key[1:9] == log
        for record in records(value[16:])
    ]


def test_what_nobody_has_acknowledged_waits_where_the_group_is_led() -> None:
    waits = batch(("s/1", "waits", 1), ("s/1", "too", 1))
    old: list[dict[bytes, bytes]] = [
        {GROUP: u64(3), **log_row(3, 10, 0, waits)},
        {MEMBER: u64(4), **log_row(4, 20, 0, batch(*(("s/2", str(n), 2) for n in range(4))))},
    ]
    # It has acknowledged 20, and was sent 22, which stays with it.
    old[1] |= session(7, client_on(0, 3), 21)
    old[1] |= {b"X" + u64(7) + u64(22): b"\0\1\0"}
    old[0] |= on_its_way(1, 5, 1, 7, batch(("s/1", "taken", 1)))
    old[0] |= on_its_way(1, 6, 1, 7, batch(("s/1", "on its way", 1)))
    old[1] |= {b"H\0\0": (1).to_bytes(4, "big") + u64(5)}
    old[1] |= on_its_way(2, 1, 0, LEADER, batch(("s/1", "on its way back", 1)))
    new = moved([dict(each) for each in old], 3)
    leader = Placement(3).group_core(KEY)
    assert [core for core, rows in enumerate(new) if GROUP in rows] == [leader]
    assert sorted(payloads(new[leader], GROUP)) == sorted(
        [b"waits", b"too", b"1", b"3", b"on its way", b"on its way back"]
    )
    assert payloads(new[0], MEMBER) == [b"2"]
    assert not {key[:1] for rows in new for key in rows} & {b"A", b"H"}
    (sent,) = (key for key in new[0] if key[:1] == b"X")
    assert b"L" + new[0][MEMBER] + sent[9:] in new[0]
    assert all(len(value) > 16 + HEADER for key, value in new[leader].items() if key[:1] == b"L")


def test_what_was_to_be_delivered_once_is_owed_to_groups_too() -> None:
    seen, unseen = batch(("s/1", "seen", 2)), batch(("s/1", "unseen", 2), ("t", "other", 2))
    leader = {GROUP: u64(3), b"E\0\0": (1).to_bytes(4, "big") + u64(1)}
    (new,) = moved([{**once(1, 1, seen), **once(1, 2, unseen)}, leader], 1)
    assert payloads(new, GROUP) == [b"unseen"]


def test_what_a_group_is_owed_that_is_led_elsewhere_waits_for_who_leads_it() -> None:
    old = {MEMBER: u64(4), **log_row(4, 20, 0, batch(("s/2", "given", 1)))}
    old |= session(7, b"c", 20)
    old |= on_its_way(1, 6, 1_025, LEADER, batch(("s/1", "on its way back", 1)))
    old |= {b"H\4\1": (1).to_bytes(4, "big") + u64(5)}
    (new,) = moved([old, {}], 1)
    assert sorted(payloads(new, GROUP)) == [b"given", b"on its way back"]
    assert not {key[:1] for key in new} & {b"A", b"H"}
