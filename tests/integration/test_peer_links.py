"""Links over real sockets: cut, stalled both ways and one way, killed; nothing is lost or twice."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustmq import metrics
from robustmq.net.peer_handshake import preamble
from robustmq.net.trust import Trust, read_trust
from robustmq.settings.cluster import Cluster
from tests import authority
from tests.peer_shell import Proxy, Shell, Street, names, nodes

A = 1 + 1 << 10
B = 2 + 1 << 10


class Two(Street):
    """Node 1 dials node 2 through a proxy; each says what the test gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Shell(1), Shell(2)
        self.proxy = Proxy(self.two.port)
        self.shells += [self.one, self.two]
        self.proxies.append(self.proxy)
        self.said: dict[int, list[bytes]] = {A: [], B: []}
        self.tell()

    def tell(self, one: int = 1, two: int = 1) -> None:
        known = nodes((1, self.one.port), incarnation=one)
        known += nodes((2, self.proxy.port), incarnation=two)
        self.one.peers.update("c", known)
        self.two.peers.update("c", known)

    def say(self, count: int = 50) -> None:
        for shell, target in ((self.one, B), (self.two, A)):
            for frame in names(count):
                self.said[shell.core].append(frame)
                shell.peers.lines[target].send(frame)

    def is_linked(self) -> bool:
        return self.one.is_linked(B) and self.two.is_linked(A)

    def linked(self) -> "Two":
        self.until(self.is_linked, "linked")
        return self

    def connects(self) -> int:
        return min(int(shell.row[metrics.LINK_CONNECTS]) for shell in self.shells)

    def all_came(self) -> None:
        """Everything that was said comes, once and in order, and is acknowledged."""
        self.until(
            lambda: (
                len(self.two.frames(A)) >= len(self.said[A])
                and len(self.one.frames(B)) >= len(self.said[B])
                and all(shell.peers.is_quiet for shell in self.shells)
            ),
            "all came",
        )
        assert self.two.frames(A) == self.said[A]
        assert self.one.frames(B) == self.said[B]


@pytest.fixture
def two() -> Iterator[Two]:
    street = Two()
    yield street
    street.close()


def test_frames_wait_for_the_link_and_then_flow_both_ways(two: Two) -> None:
    two.until(lambda: B in two.one.peers.lines and A in two.two.peers.lines, "joined")
    two.say()
    two.all_came()
    two.say(500)
    large = bytes(3_000_000)
    two.said[A].append(large)
    two.one.peers.lines[B].send(large)
    two.say()
    two.all_came()
    assert two.one.heard[0] == (B, "joined")
    assert two.one.row[metrics.LINK_CONNECTS] > 0
    assert two.one.row[metrics.LINK_FRAMES_SENT] == len(two.said[A])
    assert two.two.row[metrics.LINK_FRAMES_RECEIVED] == len(two.said[A])
    assert two.one.row[metrics.LINK_BYTES_SENT] > 3_000_000
    assert two.one.row[metrics.BYTES_SENT] == 0


def test_connections_that_break_again_and_again_lose_nothing(two: Two) -> None:
    for round_ in range(12):
        two.until(lambda: two.connects() > round_, "linked anew")  # noqa: B023
        two.say(200)
        for _ in range(round_):
            two.step()
        two.proxy.cut()
        two.say(20)
    two.all_came()
    assert two.connects() > 11


@pytest.mark.parametrize("directions", [{0}, {1}, {0, 1}])
def test_a_peer_that_is_not_heard_is_given_up_and_met_again(two: Two, directions: set[int]) -> None:
    two.linked().say()
    two.proxy.stalled = directions
    two.say()
    two.until(lambda: not two.is_linked(), "given up")
    two.say()
    two.until(lambda: two.proxy.accepted >= 3, "tried again")
    two.proxy.cut()
    two.proxy.stalled = set()
    two.all_came()


def test_a_listener_that_is_away_is_dialled_until_it_is_back(two: Two) -> None:
    two.linked()
    two.proxy.refuses = True
    two.proxy.cut()
    two.say()
    two.until(lambda: two.proxy.accepted >= 4, "tried again")
    line = two.one.peers.lines[B]
    assert line.trouble
    assert line.backlog_bytes > 0
    two.proxy.refuses = False
    two.all_came()


def replace(two: Two, **life: object) -> Shell:
    port = two.two.port
    two.two.die()
    two.two = two.shells[1] = Shell(2, port=port, **life)  # type: ignore[arg-type]
    two.two.peers.update("c", nodes((1, two.one.port)) + nodes((2, two.proxy.port)))
    return two.two


def test_a_new_life_of_a_core_is_told_between_what_both_have_said(two: Two) -> None:
    two.linked().say()
    two.all_came()
    before = len(two.one.heard)
    replace(two, epoch=2)
    two.said = {A: [], B: []}
    two.until(lambda: (B, "replaced") in two.one.heard, "replaced")
    two.linked().say()
    two.until(lambda: len(two.one.frames(B)) == 100, "came")
    assert two.one.heard[before] == (B, "replaced")
    assert two.one.heard.count((B, "replaced")) == 1
    assert two.one.peers.lines[B].epoch & 0xFFFF == 2
    two.until(lambda: two.two.frames(A) == two.said[A], "came")


def test_the_cores_of_a_node_that_has_started_again_are_replaced(two: Two) -> None:
    two.linked()
    before = two.one.peers.lines[B].epoch
    replace(two, boot=b"another")
    two.said = {A: [], B: []}
    two.until(lambda: two.one.heard[1:] == [(B, "replaced")], "met anew")
    two.linked().say()
    two.all_came()
    assert two.one.peers.lines[B].epoch != before


def test_a_fenced_node_is_not_heard_until_it_has_rejoined(two: Two) -> None:
    two.linked().say()
    two.all_came()
    two.one.peers.update("c", nodes((1, two.one.port)))
    two.until(lambda: (B, "departed") in two.one.heard, "departed")
    heard = len(two.one.heard)
    two.two.peers.lines[A].send(b"from a fenced node")
    two.until(lambda: not two.two.is_linked(A), "cut off")
    assert len(two.one.heard) == heard
    # Back, but it does not know yet that it was away: what it says is void.
    two.one.peers.update("c", nodes((1, two.one.port)) + nodes((2, two.proxy.port), incarnation=2))
    troubles: set[str] = set()

    def refused() -> bool:
        for shell in two.shells:
            troubles.update(line.trouble for line in shell.peers.lines.values())
        return any("knows the incarnations" in trouble for trouble in troubles)

    two.until(refused, "refused")
    two.tell(two=2)
    two.said = {A: [], B: []}
    two.until(lambda: two.is_linked() and (A, "departed") in two.two.heard, "met anew")
    two.one.heard.clear()
    two.two.heard.clear()
    two.say()
    two.all_came()
    assert (B, b"from a fenced node") not in two.one.heard


def test_a_connection_for_another_core_of_the_node_is_handed_to_it() -> None:
    street = Street()
    zero, one = Shell(2, 0, workers=2), Shell(2, 1, workers=2)
    dialer = Shell(1)
    street.shells += [zero, one, dialer]
    # All are sent to core 0, as the kernel may do.
    known = nodes((1, dialer.port)) + nodes((2, zero.port), workers=2)
    for shell in street.shells:
        shell.peers.update("c", known)

    def linked() -> bool:
        while zero.handed:
            core, fd, note = zero.handed.pop()
            assert core == 1
            one.peers.adopt(fd, note)
        return dialer.is_linked(B) and dialer.is_linked(B + 1)

    street.until(linked, "linked to both")
    dialer.peers.lines[B + 1].send(b"to core 1")
    street.until(lambda: one.frames(A) == [b"to core 1"], "came")
    street.close()


@pytest.mark.parametrize(
    "words",
    [b"GET / HTTP/1.1\r\n\r\n", preamble(7), preamble(0) + bytes(5_000), b"RMQ", b"\x16\x03\x01"],
)
def test_strangers_are_turned_away(two: Two, words: bytes) -> None:
    two.linked()
    stranger = socket.create_connection(("127.0.0.1", two.two.port))
    stranger.sendall(words)
    stranger.shutdown(socket.SHUT_WR)
    refused = two.two.row
    two.until(lambda: refused[metrics.LINKS_REFUSED] == 1, "refused")
    stranger.close()
    two.say()
    two.all_came()
    two.until(lambda: two.two.peers.streams == 1, "forgotten")


def test_who_is_silent_is_given_up(two: Two) -> None:
    two.linked()
    with socket.create_connection(("127.0.0.1", two.two.port)) as stranger:
        stranger.sendall(preamble(0))
        two.until(lambda: two.two.row[metrics.LINKS_REFUSED] == 1, "given up")


def test_a_node_without_the_secret_is_refused_by_both(two: Two) -> None:
    two.linked()
    replace(two, trust=Trust(b"another secret"))
    line = two.one.peers.lines[B]
    two.until(lambda: "secret of the cluster" in line.trouble, "found out")
    two.say()
    two.pass_time(0.1)
    assert two.two.frames(A) == []


def certified(directory: Path, name: str) -> Trust:
    return read_trust(
        Cluster(
            tls_cert=str(directory / f"{name}.pem"),
            tls_key=str(directory / f"{name}.key"),
            tls_ca=str(directory / "ca.pem"),
        )
    )


def test_with_certificates_links_are_encrypted_and_strangers_stay_out(tmp_path: Path) -> None:
    authority.Authority(tmp_path).complete()
    trust = certified(tmp_path, "server")
    street = Street()
    one, two = Shell(1, trust=trust), Shell(2, trust=trust)
    street.shells += [one, two]
    known = nodes((1, one.port), (2, two.port))
    for shell in street.shells:
        shell.peers.update("c", known)
    street.until(lambda: one.is_linked(B) and two.is_linked(A), "linked")
    said = [*names(300), bytes(2_000_000)]
    for frame in said:
        one.peers.lines[B].send(frame)
    street.until(lambda: len(two.frames(A)) == len(said) and one.peers.is_quiet, "came")
    assert two.frames(A) == said
    one.die()
    street.shells[0] = stranger = Shell(1, trust=certified(tmp_path, "stranger"))
    stranger.peers.update("c", known)
    street.until(lambda: two.row[metrics.LINKS_REFUSED] > 0, "refused")
    assert not stranger.is_linked(B)
    street.close()


def test_what_a_life_said_is_not_handed_up_after_its_end(two: Two) -> None:
    two.linked()
    peers = two.one.peers
    connection = peers.lines[B].connection
    assert connection is not None
    peers.update("c", nodes((1, two.one.port)) + nodes((2, two.proxy.port), incarnation=2))
    # It comes in the same turn, behind the news.
    peers.arrived(connection, 4, [b"late"])
    two.one.step()
    assert two.one.heard == [(B, "joined"), (B, "departed"), (B, "joined")]


def test_while_our_own_node_is_not_live_nobody_is_there(two: Two) -> None:
    two.linked()
    two.one.peers.update("c", nodes((2, two.proxy.port)))
    two.until(lambda: two.one.peers.lines == {}, "alone")
    assert two.one.known == {2}
