"""Lines to nodes that are known by names instead of addresses."""

import socket

import pytest

from robustmq.workers.peer_line import PeerNode
from tests.peer_shell import Shell, Street

A = 1 + 1 << 10
B = 2 + 1 << 10


def test_a_name_is_looked_up_until_one_of_its_addresses_answers() -> None:
    street = Street()
    one, two = Shell(1), Shell(2)
    street.shells += [one, two]
    known = [PeerNode(1, "localhost", one.port, 1, 1), PeerNode(2, "localhost", two.port, 1, 1)]
    for shell in street.shells:
        shell.peers.update("c", known)

    def linked() -> bool:
        # Names are looked up by the loop, in a thread of its own.
        one.loop.call_later(0.001, one.loop.stop)
        one.loop.run_forever()
        return one.is_linked(B) and two.is_linked(A)

    street.until(linked, "linked")
    street.close()


def test_a_name_that_nobody_has_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    street = Street()
    one = Shell(1)
    street.shells.append(one)

    async def unknown(*_name: object, **_kind: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(one.loop, "getaddrinfo", unknown)
    known = [PeerNode(1, "localhost", one.port, 1, 1), PeerNode(2, "nobody.invalid", 9, 1, 1)]
    one.peers.update("c", known)

    def told() -> bool:
        one.loop.call_later(0.001, one.loop.stop)
        one.loop.run_forever()
        return one.peers.lines[B].trouble == "nobody.invalid has no address: no such name"

    one.step()
    street.until(told, "said")
    street.close()
