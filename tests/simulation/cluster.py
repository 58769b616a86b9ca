"""One simulation of a cluster: nodes that die, lose their lease, are fenced and return."""

from robustmq.config import Config
from tests.simulation.client import Client
from tests.simulation.machine import Machine
from tests.simulation.network import Network
from tests.simulation.world import WATCHER, World


class Cluster(World):
    """A seed's nodes, clients and account.

    A node that dies may be back before anybody notices. When it is fenced, its clients are
    promised nothing until all know it again; in every second history their durable sessions are
    promised what is published by who knows of the fence, for nobody says that he has adopted them.
    """

    def _machine(self, config: Config, room: int) -> Machine:
        rng = self.rng
        nodes, workers = rng.choice(((2, 1), (2, 2), (3, 1), (3, 2)))
        self.cores = nodes * workers
        self.dead: set[int] = set()
        self.fences = 0
        self.moving = False
        """Whether not everybody knows yet who leads what."""
        delays = rng.choice(((0,), (0, 1, 5), (5, 20, 300)))
        network = Network(rng, delays)
        machine = Machine(config, workers, room, self._watch, nodes, network)
        machine.adopts = rng.random() < 0.5
        self._fenced: dict[int, int] = {}
        """By node: the image by which it was fenced last."""
        self.account.is_held = self._is_held
        return machine

    # ------------------------------------------------------------------ what happens

    def _step(self) -> None:
        super()._step()
        rng = self.rng
        if rng.random() < 0.3:
            self._hear(rng.randrange(self.cores))
        if rng.random() < 0.012 * self.reckless:
            self._befall(rng.randrange(self.machine.nodes))
        if not self._full and rng.random() < 0.01:
            self._pause()
        if self.account.away and self._is_whole and self.machine.rests:
            self.trace("everybody knows everybody")
            self.account.away.clear()

    def _pause(self) -> None:
        """For a while nothing happens, and all come to know the same."""
        for place in list(self.machine.down):
            if place // self.machine.workers not in self.dead:
                self._restart(place)
        gone = self.dead | self.machine.isolated
        if any(node in self.machine.network.images[-1] for node in gone):
            return
        self._calm(lambda: True)
        self.trace(f"everybody agrees without {sorted(gone)}")
        self.moving = False

    def _shares(self) -> bool:
        return super()._shares() and WATCHER not in self.account.away and not self.moving

    def _hear(self, place: int) -> bool:
        core = self.machine.cores.get(place)
        images = self.machine.network.images
        if core is None or core.heard == len(images) - 1:
            return False
        heard = self.rng.randint(core.heard + 1, len(images) - 1)
        self.trace(f"core {place} hears image {heard} of {sorted(images[heard])}")
        core.hear(heard)
        return True

    @property
    def _is_whole(self) -> bool:
        return not (self.dead or self.machine.isolated or self.machine.down)

    def _befall(self, node: int) -> None:
        """Something happens to a node."""
        rng = self.rng
        if node in self.dead or node in self.machine.isolated:
            self._return(node)
        elif rng.random() < 0.5:
            self.trace(f"node {node} dies")
            self._die_of(node)
            self.dead.add(node)
            if rng.random() < 0.7:
                self._fence(node)
        else:
            self.trace(f"node {node} loses its lease")
            for client in self._clients_of(node):
                client.drop()
            self.machine.stop_clients(node)
            self._fence(node)

    def _clients_of(self, node: int) -> list[Client]:
        places = self.machine.places(node)
        return [
            client for name, client in self.clients.items() if self.machine.home_of(name) in places
        ]

    def _fence(self, node: int) -> None:
        self.trace(f"node {node} is fenced")
        self.fences += 1
        self.moving = self.account.was_moved = True
        self.machine.network.change(node, None)
        self._fenced[node] = len(self.machine.network.images) - 1
        self.account.departs({client.name for client in self._clients_of(node)})
        self.account.lets_go(self.clients)

    def _is_held(self, publisher: str, client: str) -> bool:
        """Whether what a client publishes now must reach the session of one whose node is gone.

        Its core must have heard of that: before, it has waited for the node, and is refused.
        """
        core = self.machine.cores.get(self.machine.home_of(publisher))
        fenced = self._fenced.get(self.machine.home_of(client) // self.machine.workers)
        if self.machine.adopts or core is None or fenced is None:
            return False
        return core.heard >= fenced

    def _return(self, node: int) -> None:
        self.trace(f"node {node} returns")
        if node in self.dead:
            self.dead.discard(node)
            self._start_node(node)
        else:
            self.machine.join(node)

    def _restart(self, index: int) -> None:
        node = index // self.machine.workers
        if node in self.dead:
            self._return(node)
        else:
            super()._restart(index)

    def _die_together(self) -> None:
        node = self.rng.randrange(self.machine.nodes)
        if node not in self.dead and node not in self.machine.isolated:
            self._befall(node)

    # ------------------------------------------------------------------ the end

    def _mend(self) -> None:
        """First those who are there have what is theirs, then the others come back."""
        for index in list(self._full):
            self._fill(index)
        gone = sorted(self.dead | self.machine.isolated)
        for index in list(self.machine.down):
            if index // self.machine.workers not in self.dead:
                self._restart(index)
        for node in gone:
            if node in self.machine.network.images[-1]:
                self._fence(node)
        if gone and self.machine.adopts:
            self.trace(f"without nodes {gone}")
            away = {client.name for node in gone for client in self._clients_of(node)}
            there = [client for name, client in self.clients.items() if name not in away]
            self._calm(lambda: all(client.satisfied for client in there))
        for node in gone:
            self._return(node)
        super()._mend()

    def _go_on(self, client: Client) -> bool:
        node = self.machine.home_of(client.name) // self.machine.workers
        # Whoever finds no node to connect to tries again and again.
        return node not in self.machine.isolated and super()._go_on(client)

    def _hears(self) -> bool:
        active = False
        for place in range(self.cores):
            active |= self._hear(place)
        return active

    @property
    def _is_complete(self) -> bool:
        return super()._is_complete and not self.fences
