"""Links under random harm from a seed: what one life says to another comes once and in order."""

import random
from collections.abc import Callable

import pytest

from tests.peer_shell import Proxy, Shell, Street, nodes

CORES = {1: 1 + 1 << 10, 2: 2 + 1 << 10}
ACTIONS = 25


def read(frame: bytes) -> tuple[tuple[int, int, int], int]:
    """Return whose frame it is, and its number."""
    node, life, begun, number, _ = frame.split(b" ", 4)
    return (int(node), int(life), int(begun)), int(number)


class Harm(Street):
    """Two nodes that speak all the time, while they and their connection are harmed.

    A frame names the life that says it, how often that life has heard the other begin anew, and
    its number since then.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.lives = {1: 1, 2: 1}
        self.incarnations = {1: 1, 2: 1}
        self.shells = [Shell(1), Shell(2)]
        self.proxy = Proxy(self.shells[1].port)
        self.proxies.append(self.proxy)
        self.said: dict[tuple[int, int, int], int] = {}
        self.tell()

    def tell(self, *shells: Shell) -> None:
        ports = {1: self.shells[0].port, 2: self.proxy.port}
        known = [
            each
            for node, port in ports.items()
            for each in nodes((node, port), incarnation=self.incarnations[node])
        ]
        for shell in shells or self.shells:
            shell.peers.update("c", known)

    def tag(self, shell: Shell) -> tuple[int, int, int]:
        begun = sum(isinstance(what, str) for _, what in shell.heard)
        return shell.node, self.lives[shell.node], begun

    def speak(self) -> None:
        for shell in self.shells:
            line = shell.peers.lines.get(CORES[3 - shell.node])
            if line is not None and not shell.peers.has_events:
                tag = self.tag(shell)
                for _ in range(self.random.randrange(20)):
                    number = self.said[tag] = self.said.get(tag, -1) + 1
                    size = self.random.choice((1, 10, 1_000, 400_000))
                    line.send(b"%d %d %d %d " % (*tag, number) + bytes(size))

    def replace(self) -> None:
        node = self.random.choice((1, 2))
        old = self.shells[node - 1]
        old.die()
        self.lives[node] += 1
        self.shells[node - 1] = Shell(node, port=old.port, epoch=self.lives[node])
        self.tell()

    def fence(self) -> None:
        self.incarnations[self.random.choice((1, 2))] += 1
        self.tell_one()

    def tell_one(self) -> None:
        """One of them hears of it, and the other does not yet."""
        self.tell(self.random.choice(self.shells))

    def stall(self) -> None:
        self.proxy.stalled = set(self.random.sample((0, 1), self.random.randrange(3)))

    def act(self) -> None:
        """Do one thing, and let a little time pass."""
        actions: tuple[Callable[[], None], ...] = (
            self.proxy.cut, self.proxy.cut, self.stall, self.replace, self.fence, self.tell_one,
        )  # fmt: skip
        harm = self.random.choice(actions)
        if self.random.randrange(3):
            self.proxy.stalled.clear()
            self.until(self.is_met, "met")
        for _ in range(3):
            self.speak()
            for _ in range(self.random.randrange(6)):
                self.step()
        harm()
        self.speak()
        for _ in range(self.random.randrange(6)):
            self.step()

    def is_met(self) -> bool:
        """Say whether they are connected; they never are while one of them has not been told."""
        self.step()
        self.tell()
        one, two = self.shells
        return one.is_linked(CORES[2]) and two.is_linked(CORES[1])

    def check(self) -> None:
        """Each life's words came as they were said, from the first on, and were not mixed."""
        for shell in self.shells:
            expected: dict[tuple[int, int, int], int] = {}
            for _, what in shell.heard:
                if isinstance(what, bytes):
                    key, number = read(what)
                    assert number == expected.get(key, -1) + 1, (key, number)
                    assert key == max({*expected, key})
                    expected[key] = number

    def settle(self) -> None:
        """Without harm both meet, and all that they have said since arrives."""
        self.proxy.stalled = set()
        self.proxy.cut()
        self.tell()
        one, two = self.shells
        self.step()
        self.until(lambda: one.is_linked(CORES[2]) and two.is_linked(CORES[1]), "met")
        self.speak()

        def heard_all() -> bool:
            lines = [*one.peers.lines.values(), *two.peers.lines.values()]
            return len(lines) == 2 and all(e.is_open and not e.backlog_bytes for e in lines)

        self.until(heard_all, "heard")
        self.step()
        for shell, other in ((one, two), (two, one)):
            tag = self.tag(shell)
            heard = [what for what in other.frames(shell.core) if read(what)[0][0] == shell.node]
            if tag in self.said:
                assert read(heard[-1]) == (tag, self.said[tag])


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_to_links_their_words_stay_whole(seed: int) -> None:
    harm = Harm(seed)
    for _ in range(ACTIONS):
        harm.act()
        harm.check()
    harm.settle()
    harm.check()
    harm.close()
