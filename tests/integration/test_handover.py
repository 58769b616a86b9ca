"""Sockets on their way between processes: in order, in portions, and when nothing more fits."""

import errno
import os
import socket
from collections.abc import Iterator, Sequence

import pytest

from robustmq.net.handover import Handover

MANY = 450
"""More than one datagram carries."""
NOTE = b"who it is"


class Refusing(socket.socket):
    """A socket whose kernel has no room for another descriptor, `refusals` times."""

    refusals = 0

    def sendmsg(self, *arguments: object) -> int:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
        return super().sendmsg(*arguments)  # type: ignore[arg-type]


class Ends:
    """A handover whose only core is itself, and what it asks of its worker."""

    def __init__(self) -> None:
        self.inbound, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.outbound = Refusing(fileno=other.detach())
        for end in (self.inbound, self.outbound):
            end.setblocking(False)
        self.arrived: list[int] = []
        self.blocked: list[int] = []
        self.exhausted = 0
        self.handover = Handover(
            self.inbound, [self.outbound], self._arrive, self._block, self._exhaust
        )

    def _arrive(self, fd: int, note: bytes) -> None:
        assert note == NOTE
        self.arrived.append(fd)

    def _block(self, core: int, _: socket.socket) -> None:
        self.blocked.append(core)

    def _exhaust(self) -> None:
        self.exhausted += 1

    def send(self, descriptors: Sequence[int]) -> None:
        for descriptor in descriptors:
            self.handover.send(0, descriptor, NOTE)
        self.handover.flush()

    def close(self) -> None:
        self.inbound.close()
        self.outbound.close()
        for descriptor in self.arrived:
            os.close(descriptor)


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.close()


def files(count: int) -> list[int]:
    """Return descriptors of files that can be told apart by their sizes."""
    made = [os.memfd_create(f"file {number}") for number in range(count)]
    for number, descriptor in enumerate(made):
        os.ftruncate(descriptor, number)
    return made


def sizes(descriptors: Sequence[int]) -> list[int]:
    return [os.fstat(descriptor).st_size for descriptor in descriptors]


def test_more_than_a_datagram_arrives_in_order(ends: Ends) -> None:
    sent = files(MANY)
    ends.send(sent)
    assert ends.handover.waiting == 0
    ends.handover.receive()
    assert sizes(ends.arrived) == [*range(MANY)]
    assert not any(os.get_inheritable(descriptor) for descriptor in ends.arrived)


def test_what_finds_no_room_stays_and_leaves_later(ends: Ends) -> None:
    sent = files(MANY)
    for number, descriptor in enumerate(sent):
        ends.handover.send(0, descriptor, NOTE)
        ends.handover.flush()
        assert ends.handover.waiting <= number
        if ends.blocked:
            break
    assert ends.blocked == [0], "a queue of datagrams has an end"
    assert ends.handover.waiting == 1
    ends.handover.receive()
    ends.handover.flush()
    ends.handover.receive()
    assert ends.handover.waiting == 0
    assert sizes(ends.arrived) == [*range(len(ends.arrived))]
    for descriptor in sent[len(ends.arrived) :]:
        os.close(descriptor)


def test_too_many_on_their_way_is_no_error(ends: Ends) -> None:
    ends.outbound.refusals = 2
    ends.send(files(3))
    ends.handover.flush()
    assert (ends.exhausted, ends.handover.waiting, ends.blocked) == (2, 3, [])
    ends.handover.flush()
    ends.handover.receive()
    assert sizes(ends.arrived) == [0, 1, 2]


def test_a_broken_descriptor_is_an_error_of_ours(ends: Ends) -> None:
    (gone,) = files(1)
    os.close(gone)
    ends.handover.send(0, gone, NOTE)
    with pytest.raises(OSError, match="Bad file descriptor"):
        ends.handover.flush()
