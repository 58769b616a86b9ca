"""Messages over a socket pair: whole, in order, bounded by what the socket takes."""

from collections.abc import Iterator

import pytest

from robustmq.net.channel import PIECE_BYTES, Channel, pair


class Ends:
    def __init__(self) -> None:
        self.sockets = pair()
        self.blocks = 0
        self.left = Channel(self.sockets[0], self._blocked)
        self.right = Channel(self.sockets[1], self._blocked)

    def _blocked(self) -> None:
        self.blocks += 1


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    for end in ends.sockets:
        end.close()


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 100_000])
def test_messages_arrive_whole(ends: Ends, size: int) -> None:
    messages = [bytes([n]) * size for n in range(3)]
    for message in messages:
        ends.left.send(message)
    assert ends.right.receive() == messages
    assert ends.right.receive() == []
    ends.right.send(b"back")
    assert ends.left.receive() == [b"back"]


def test_what_the_socket_does_not_take_waits(ends: Ends) -> None:
    message = bytes(3 << 20)
    ends.left.send(message)
    ends.left.send(b"next")
    assert ends.blocks
    assert ends.left.backlog_bytes > 0
    got: list[bytes] = []
    while not got or got[-1] != b"next":
        got += ends.right.receive()
        ends.left.flush()
    assert got == [message, b"next"]
    assert ends.left.backlog_bytes == 0


def test_a_life_that_ended_within_a_message_leaves_nothing_of_it(ends: Ends) -> None:
    ends.left.send(bytes(3 << 20))
    ends.right.receive()
    ends.left.clear()
    assert ends.left.backlog_bytes == 0
    ends.right.receive()
    Channel(ends.sockets[0], lambda: None).send(b"of the next life")
    assert ends.right.receive() == [b"of the next life"]


def test_the_end_of_a_message_without_its_beginning_is_nothing(ends: Ends) -> None:
    ends.left.send(bytes(3 << 20))
    later = Channel(ends.sockets[1], lambda: None)
    ends.right.receive()
    ends.left.flush()
    assert later.receive() == []
    ends.left.flush()
    while ends.left.backlog_bytes:
        assert later.receive() == []
        ends.left.flush()
    later.receive()
    ends.left.send(b"whole")
    assert later.receive() == [b"whole"]
