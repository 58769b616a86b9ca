"""The fabric of one worker: rings and links to its peers, and what it tells itself."""

from collections.abc import Callable, Iterator, Mapping

from robustmq import metrics
from robustmq.broker.placement import Life
from robustmq.errors import Corrupt
from robustmq.message.core_number import FIRST_REMOTE
from robustmq.shm.frame import EPOCH_MASK
from robustmq.shm.receiver import Receiver
from robustmq.shm.region import State
from robustmq.shm.sender import Sender
from robustmq.workers import log
from robustmq.workers.inheritance import Inheritance
from robustmq.workers.peer_line import Line, PeerNode
from robustmq.workers.peers import Peers

_log = log.EventLog("links")


class Links:
    """Frames to and from every worker of the cluster, in order per pair; a `router.Fabric`.

    `handle(source, frame)` takes what comes in, `replaced(core)` hears of a peer's new life:
    after all that the earlier one said, before anything that the new one says. What comes from
    a life that had ended before this process began is dropped. Cores of other nodes have numbers
    from `core_number.FIRST_REMOTE` on: `changed(nodes)` hears which nodes are live, and what is
    sent to a core of another node is dropped.
    """

    def __init__(self, inheritance: Inheritance) -> None:
        self._index = inheritance.index
        self._cells = inheritance.region.counters(inheritance.index)
        self._limit = inheritance.config.runtime.turn_frames_bytes
        self._local: list[bytes] = []
        self._senders: dict[int, Sender] = {}
        self._receivers: dict[int, Receiver] = {}
        self._states: dict[int, State] = {}
        self._epochs: dict[int, int] = {}
        self._broken: set[int] = set()
        self.handle: Callable[[int, bytes], None]
        self.replaced: Callable[[int], None]
        self.changed: Callable[[Mapping[int, Life]], None]
        self._peers: Peers | None = None
        self._remote: Mapping[int, Line] = {}
        mine = inheritance.region.state(inheritance.index)
        self._own_epoch = mine.epoch
        for peer in range(inheritance.workers):
            if peer != self._index:
                state = self._states[peer] = inheritance.region.state(peer)
                # Before the sender is bound: a life that begins in between is met later.
                self._epochs[peer] = state.epoch
                bell = inheritance.doorbells[peer]
                out = inheritance.region.ring(self._index, peer)
                self._senders[peer] = Sender(out, bell, state, mine, self._cells)
                into = inheritance.region.ring(peer, self._index)
                self._receivers[peer] = Receiver(into, state, mine, bell)

    def attach(self, peers: Peers) -> None:
        """Reach the cores of other nodes, too; who hears of what comes in is known by then."""
        self._peers = peers
        self._remote = peers.lines
        peers.handle, peers.replaced = self.handle, self.replaced
        peers.changed = self._changed

    def _changed(self, nodes: Mapping[int, PeerNode]) -> None:
        self.changed(
            {number: Life(node.incarnation, node.workers) for number, node in nodes.items()}
        )

    def send(self, core: int, frame: bytes) -> None:
        """Queue a frame; it leaves with `flush`, or with the next `receive` when it is ours."""
        if core == self._index:
            self._local.append(frame)
        elif core < FIRST_REMOTE:
            self._senders[core].send(frame)
        else:
            line = self._remote.get(core)
            if line is not None:
                line.send(frame)

    def backlog(self, core: int) -> int:
        """Bytes that wait for room in the ring to a core, or for another node to take them."""
        if core >= FIRST_REMOTE:
            line = self._remote.get(core)
            return line.backlog_bytes if line is not None else 0
        return 0 if core == self._index else self._senders[core].backlog_bytes

    def epoch(self, core: int) -> int:
        """The number of the life that a core is in, as far as this one has met it; 0: not yet."""
        if core >= FIRST_REMOTE:
            line = self._remote.get(core)
            return line.epoch if line is not None else 0
        return self._epochs.get(core, self._own_epoch)

    def receive(self) -> bool:
        """Handle what has come in, up to a limit per ring; True when there was anything."""
        handled = self.receive_own()
        for peer, receiver in self._receivers.items():
            frames = self._take(peer, receiver)
            if frames:
                handled = True
                if receiver.source_epoch == self._epochs[peer] & EPOCH_MASK:
                    self._handle(peer, frames)
                elif self._states[peer].epoch != self._epochs[peer]:
                    # A new life speaks before its bell was answered.
                    self._meet(peer, frames)
        if self._peers is not None and self._peers.receive():
            return True
        return handled

    def _handle(self, peer: int, frames: list[bytes]) -> None:
        self._cells[metrics.FRAMES_RECEIVED] += len(frames)
        for frame in frames:
            self.handle(peer, frame)

    def receive_own(self) -> bool:
        """Handle what this core has told itself; True when there was anything."""
        if not self._local:
            return False
        while self._local:
            local, self._local = self._local, []
            for frame in local:
                self.handle(self._index, frame)
        return True

    def _take(self, peer: int, receiver: Receiver) -> list[bytes]:
        if peer in self._broken:
            return []
        try:
            return receiver.receive(self._limit)
        except Corrupt as damage:
            # What the ring holds cannot be trusted any more: its writer must be replaced.
            self._broken.add(peer)
            _log.error("ring damaged", peer=peer, where=damage.where)
            return []

    def flush(self) -> None:
        """Push what was queued; what finds no room goes when the peer has made some."""
        for sender in self._senders.values():
            sender.flush()
        if self._peers is not None:
            self._peers.flush()

    def answer_bell(self) -> None:
        """Somebody rang: frames, room in a ring, or a peer that was replaced.

        The bell is not silenced: the poller watches its edge, and every ring is one.
        """
        for peer, epoch in self._epochs.items():
            if self._states[peer].epoch != epoch:
                self._meet(peer)

    def _meet(self, peer: int, first: list[bytes] | None = None) -> None:
        """A peer has a new life: take all that its last one said, then tell the new one.

        `first` is what the new life has said already, None when it is not known yet.
        """
        receiver = self._receivers[peer]
        while first is None:
            frames = self._take(peer, receiver)
            if frames and receiver.source_epoch == self._epochs[peer] & EPOCH_MASK:
                self._handle(peer, frames)
            else:
                first = frames
        self._broken.discard(peer)
        epoch = self._epochs[peer] = self._states[peer].epoch
        self._senders[peer].rebind()
        self.replaced(peer)
        if first and receiver.source_epoch == epoch & EPOCH_MASK:
            self._handle(peer, first)

    @property
    def is_quiet(self) -> bool:
        """Say whether other nodes have taken all that they were told, as far as they are there."""
        return self._peers is None or self._peers.is_quiet

    @property
    def others(self) -> int:
        """How many cores of other nodes there are."""
        return len(self._remote)

    def walk(
        self, start: int, arguments: Mapping[str, object]
    ) -> Iterator[tuple[int, dict[str, object]]]:
        """Yield what an administrator is told of each of them, and the position behind it."""
        if self._peers is not None:
            yield from self._peers.walk(start, arguments)

    def sleep(self) -> bool:
        """Announce to every peer that we sleep; False when something is there to be received."""
        if self._local or (self._peers is not None and self._peers.has_events):
            return False
        for receiver in self._receivers.values():
            if not receiver.sleep():
                self.awake()
                return False
        return True

    def awake(self) -> None:
        """Peers need not ring."""
        for receiver in self._receivers.values():
            receiver.awake()
