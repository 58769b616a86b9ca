"""Frames of Raft messages: what is written is read, and nothing else is."""

import msgspec
import pytest

from robustmq.errors import ProtocolError
from robustmq.raft.message import (
    Entry,
    EntryKind,
    Membership,
    Message,
    MessageKind,
    Snapshot,
    decode,
    encode,
    membership,
    membership_bytes,
)
from tests.unit.raft.group import entries

APPEND = MessageKind.APPEND
LIMIT = 1 << 20


def test_messages_come_back() -> None:
    messages = [
        Message(MessageKind.HEARTBEAT, 1, 2, 3, 4, commit=9, context=7),
        Message(APPEND, 1, 2, 3, 4, 5, 2, 9, entries=tuple(entries(6, 2, 3, 4))),
        Message(MessageKind.SNAPSHOT, 0, 0, 1, 9, snapshot=Snapshot(5, 4, Membership((0,), (1,)))),
    ]
    assert decode(encode(messages), LIMIT) == messages
    assert decode(memoryview(encode([])), LIMIT) == []


def test_a_heartbeat_is_small() -> None:
    assert len(encode([Message(MessageKind.HEARTBEAT, 1, 2, 3, 4)])) < 20


@pytest.mark.parametrize(
    "message",
    [
        Message(MessageKind.SNAPSHOT, 1, 2, 3, 4),
        Message(APPEND, 1, 2, 3, 4, 5, 2, entries=tuple(entries(7, 2))),
        Message(APPEND, 1, 2, 3, 4, 5, 2, entries=tuple(entries(6, 1))),
        Message(APPEND, 1, 2, 3, 4, 5, 2, entries=tuple(entries(6, 5))),
        Message(APPEND, 1, 2, 3, 4, 5, 2, entries=tuple(entries(6, 3, 2))),
        Message(APPEND, 1, 2, 3, 4, 5, 2, entries=(Entry(6, 2, EntryKind.MEMBERSHIP, b"?"),)),
        Message(APPEND, -1, 2, 3, 4),
        Message(APPEND, 1, 2, 3, 1 << 63),
    ],
)
def test_what_makes_no_sense_is_an_error_of_the_peer(message: Message) -> None:
    with pytest.raises(ProtocolError):
        decode(encode([message]), LIMIT)


@pytest.mark.parametrize("frame", [b"", b"\x91", b"\xc0", b"\x91\x91\x63", b"\x91\x95\x0d\0\0\0\0"])
def test_what_is_no_frame_is_an_error_of_the_peer(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(frame, LIMIT)


def test_a_frame_has_a_bound() -> None:
    frame = encode([Message(APPEND, 1, 2, 3, 4, entries=(Entry(1, 4, EntryKind.NO_OP, b""),))])
    assert decode(frame, len(frame))
    with pytest.raises(ProtocolError, match="are allowed"):
        decode(frame, len(frame) - 1)


def test_later_fields_may_come() -> None:
    raw = msgspec.msgpack.decode(encode([Message(APPEND, 1, 2, 3, 4, context=5)]))
    raw[0] += [None] * (13 - len(raw[0])) + ["new"]
    raw[0][11] = []
    assert decode(msgspec.msgpack.encode(raw), LIMIT)[0].context == 5


def test_memberships_come_back() -> None:
    members = Membership((1, 2), (3,))
    assert membership(membership_bytes(members)) == members
    with pytest.raises(ProtocolError):
        membership(b"\x92\x91\xa1a\x90")
