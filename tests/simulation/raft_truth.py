"""What must be true of a Raft group at every moment (Raft 5.2-5.4, figure 3), and of its reads."""

from robustmq.raft.message import Entry, EntryKind
from robustmq.raft.node import Node
from tests.simulation.raft_disk import Disk


class Broken(AssertionError):
    """An invariant does not hold."""


class Truth:
    """The one history that all replicas must agree on, as it grows."""

    def __init__(self) -> None:
        self.terms: list[int] = [0]
        """The term of each committed entry, by index."""
        self.data: list[bytes] = [b""]
        self.acknowledged: set[bytes] = set()
        self._leaders: dict[int, int] = {}
        self._lengths: dict[tuple[int, int], int] = {}

    @property
    def committed(self) -> int:
        """The last index that any replica has handed out or any leader has committed."""
        return len(self.terms) - 1

    def handed(self, who: int, applied: int, entries: list[Entry]) -> None:
        """State machine safety: at an index every replica applies the same entry, in order."""
        for entry in entries:
            applied += 1
            if entry.index != applied:
                raise Broken(f"{who} applies {entry.index} where {applied} follows")
            if entry.index >= len(self.terms):
                raise Broken(f"{who} applies {entry.index}, which no leader has committed")
            if (entry.term, entry.data) != (self.terms[entry.index], self.data[entry.index]):
                raise Broken(f"{who} applies another entry {entry.index}")
            if entry.kind is EntryKind.COMMAND:
                self.acknowledged.add(entry.data)

    def look(self, who: int, node: Node, disks: dict[int, Disk]) -> None:
        """What one replica shows after something has happened to it."""
        log = node._log
        if node.commit > log.last_index or node.handed > node.commit:
            raise Broken(f"{who} has committed {node.commit} of {log.last_index}")
        if node.leads:
            self._look_at_leader(who, node, disks)
        elif node.commit >= len(self.terms):
            raise Broken(f"{who} follows and has committed {node.commit}, beyond all leaders")
        elif log.term_at(node.commit) != self.terms[node.commit]:
            raise Broken(f"{who} takes another entry {node.commit} for committed")

    def _look_at_leader(self, who: int, node: Node, disks: dict[int, Disk]) -> None:
        log, term = node._log, node.term
        first = self._leaders.setdefault(term, who)
        if first != who:
            raise Broken(f"{first} and {who} lead in term {term}")
        length = self._lengths.get((who, term))
        if length is None:
            self._complete(who, node)
        elif log.last_index < length:
            raise Broken(f"leader {who} has shortened its log to {log.last_index}")
        self._lengths[who, term] = log.last_index
        if node.commit >= len(self.terms):
            self._commit(who, node, disks)

    def _complete(self, who: int, node: Node) -> None:
        """Leader completeness: what is committed is in the log of every later leader."""
        log = node._log
        if log.term_at(log.last_index) != node.term:
            raise Broken(f"{who} leads without an entry of its term {node.term}")
        for index in range(log.start.index, len(self.terms)):
            if log.term_at(index) != self.terms[index]:
                raise Broken(f"leader {who} of term {node.term} lacks entry {index}")

    def _commit(self, who: int, node: Node, disks: dict[int, Disk]) -> None:
        """A leader commits what a majority of the voters has on its disk, of its own term."""
        log, index = node._log, node.commit
        if log.term_at(index) != node.term:
            raise Broken(f"{who} commits {index}, which is not of its term {node.term}")
        voters = node.membership.voters
        having = [each for each in voters if disks[each].has(index, node.term)]
        if len(having) <= len(voters) // 2:
            raise Broken(f"{who} commits {index}; of {voters} only {having} have it")
        while len(self.terms) <= index:
            for entry in log.read(len(self.terms), index, 1 << 30):
                self.terms.append(entry.term)
                self.data.append(entry.data)

    @staticmethod
    def match(first: Node, second: Node) -> None:
        """Log matching: where two logs agree on a term, they agree on all before."""
        one, other = first._log, second._log
        low = max(one.start.index, other.start.index)
        agreed = False
        for index in range(min(one.last_index, other.last_index), low, -1):
            same = one.term_at(index) == other.term_at(index)
            if agreed and not same:
                raise Broken(f"two logs agree behind entry {index} and not on it")
            agreed = agreed or same
