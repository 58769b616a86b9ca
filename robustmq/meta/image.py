"""The image: what every process knows of the metadata, folded from committed records in order."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

import msgspec

from robustmq.meta.records import CLUSTER, NODE, Cluster, Node, Record, decoded, node_of


class Folded(Protocol):
    """What the records of a kind become in a process."""

    def clear(self) -> None:
        """Forget all: the records follow."""

    def apply(self, name: str, value: dict[str, Any] | None, changed: int = 0) -> None:
        """Learn that a record is new or other, or with None that it is gone; raises ValueError.

        `changed` is the index of this change.
        """


class Image:
    """The records as of `index`, the same in every process that has reached it.

    A kind that has an entry in `folds` is held by that alone; all others are kept here, those
    too that nobody knows yet. `changed(kinds)` is called when a message has been folded.
    `unusable(record, reason)` hears of a record that its fold did not take.
    """

    def __init__(self, unusable: Callable[[Record, str], None]) -> None:
        self.index: int | None = None
        self.folds: dict[str, Folded] = {}
        self.changed: Callable[[Collection[str]], None] = lambda _kinds: None
        self.nodes: Mapping[int, Node] = {}
        """The nodes of the cluster by number; a new mapping with every change."""
        self._unusable = unusable
        self._kinds: dict[str, dict[str, bytes]] = {}

    def of(self, kind: str) -> Mapping[str, bytes]:
        """Return the records of a kind that has no fold, by name."""
        return self._kinds.get(kind, {})

    def all(self) -> list[Record]:
        """Return all records that are kept here."""
        return [
            Record(kind, name, value)
            for kind, named in self._kinds.items()
            for name, value in named.items()
        ]

    @property
    def cluster(self) -> Cluster | None:
        """What cluster this is; None before it has been founded."""
        value = self.of(CLUSTER).get("")
        return None if value is None else msgspec.msgpack.decode(value, type=Cluster)

    def replace(self, index: int, records: Iterable[Record]) -> bool:
        """Take a snapshot in the place of all that was known; False: it is older than that."""
        if self.index is not None and index < self.index:
            return False
        for fold in self.folds.values():
            fold.clear()
        before = self._kinds
        self._kinds = {}
        self.index = index
        self._fold(records, {*before, *self.folds, NODE})
        return True

    def apply(self, before: int, index: int, records: Iterable[Record]) -> bool:
        """Fold what changed behind the index `before` up to `index`.

        What is known already is passed over. False: something is missing in between, and the
        snapshot must be fetched again.
        """
        if self.index is None or before > self.index:
            return False
        if index > self.index:
            self.index = index
            self._fold(records, ())
        return True

    def _fold(self, records: Iterable[Record], kinds: Iterable[str]) -> None:
        touched = {*kinds}
        for record in records:
            touched.add(record.kind)
            fold = self.folds.get(record.kind)
            if fold is not None:
                self._hand_over(fold, record)
            elif record.value is not None:
                self._kinds.setdefault(record.kind, {})[record.name] = record.value
            else:
                self._kinds.get(record.kind, {}).pop(record.name, None)
        if NODE in touched:
            found = (node_of(value) for value in self.of(NODE).values())
            self.nodes = {node.number: node for node in found}
        if touched:
            self.changed(touched)

    def _hand_over(self, fold: Folded, record: Record) -> None:
        try:
            value = None if record.value is None else decoded(record.value)
            fold.apply(record.name, value, record.changed)
        except (msgspec.MsgspecError, ValueError) as error:
            # Written by a newer version: the others hold nevertheless.
            self._unusable(record, str(error))
