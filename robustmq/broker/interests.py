"""What all cores want to hear: filters, and the cores behind each topic."""

from collections.abc import Callable, Iterable
from typing import Final

from robustmq._kernel.interest import Interest
from robustmq._kernel.trie import Trie
from robustmq.broker import topic_cache
from robustmq.message.batch import merged
from robustmq.message.topic import is_wildcard

DURABLE: Final = 1 << 16
"""The bit of a target that says: the core must have it on its disk before it is acknowledged."""

LOGGED: Final = 1 << 17
"""The bit of a target that says: the core keeps the log of the topic."""

CORE: Final = DURABLE - 1
"""The bits of a target that name the core."""

_MOST_TUPLES: Final = 4_096
"""Sets of targets that are kept as one tuple each, so that equal answers are the same object."""


class Interests:
    """Who wants which filter, told by the cores themselves; a core is in it once per filter.

    A core that was replaced is taken at its predecessor's word until it has told everything
    itself: a durable session's messages are owed to it meanwhile. A core that is new takes no
    append before all `awaited` cores have told what they want, so that nobody misses it.
    `log_core` says which core keeps the log of a topic, None: there is none.
    """

    def __init__(
        self, route_cache: int, log_core: Callable[[bytes], int | None] = lambda _: None
    ) -> None:
        self._interest = Interest(self._resolve, route_cache)
        self._log_core = log_core
        self._filters: dict[bytes, tuple[int, ...]] = {}
        self._wild: Trie[bytes] = Trie()
        self._tuples: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._wanted: dict[bytes, bool] = {}
        self._route_cache = route_cache
        self._unconfirmed: dict[int, set[bytes]] = {}
        self._awaited: set[int] = set()
        self._orphaned: set[bytes] = set()
        self._wild_orphaned: Trie[bytes] = Trie()

    @property
    def awaited(self) -> bool:
        """Whether some core has not told yet what it wants."""
        return bool(self._awaited)

    @property
    def awaiting(self) -> set[int]:
        """The cores that have to tell what they want."""
        return set(self._awaited)

    def await_from(self, cores: Iterable[int]) -> None:
        """Learn which cores have to tell what they want (`told`) before anything is appended."""
        self._awaited.update(cores)

    def told(self, core: int) -> None:
        """Core `core` has told all that it wants: what its predecessor wanted beyond is void."""
        self._awaited.discard(core)
        for topic_filter in self._unconfirmed.pop(core, ()):
            self.unwant(core, topic_filter)

    def replaced(self, core: int) -> None:
        """Core `core` has a new life: what it wants is to be confirmed."""
        self._unconfirmed[core] = self._wanted_by(core)

    def departed(self, core: int) -> None:
        """Core `core` is gone, and nothing is wanted there; its durable filters are orphaned."""
        self._awaited.discard(core)
        self._unconfirmed.pop(core, None)
        for topic_filter in self._wanted_by(core):
            if core | DURABLE in self._filters[topic_filter]:
                self._orphan(topic_filter)
            self.unwant(core, topic_filter)

    def _orphan(self, topic_filter: bytes) -> None:
        if topic_filter not in self._orphaned:
            self._orphaned.add(topic_filter)
            if is_wildcard(topic_filter):
                self._wild_orphaned.add(topic_filter, topic_filter)

    @property
    def has_orphans(self) -> bool:
        """Whether durable sessions of cores that are gone may be owed something."""
        return bool(self._orphaned)

    def is_orphaned(self, topic: bytes) -> bool:
        """Say whether a durable session of a core that is gone may want a topic."""
        return topic in self._orphaned or bool(self._wild_orphaned.match(topic))

    def adopted(self) -> None:
        """All that is wanted by sessions whose core has gone is wanted by their new cores."""
        self._orphaned.clear()
        self._wild_orphaned = Trie()
        self._wanted.clear()

    def _wanted_by(self, core: int) -> set[bytes]:
        durable = core | DURABLE
        return {
            topic_filter
            for topic_filter, targets in self._filters.items()
            if core in targets or durable in targets
        }

    def split(self, batch: bytes) -> tuple[list[tuple[int, bytes]], list[tuple[int, int]]]:
        """Return the parts of a batch by target, and the ranges of records that nobody wants.

        See `_kernel.interest.Interest.split`.
        """
        return self._interest.split(batch)

    def split_by_core(self, batch: bytes) -> tuple[list[tuple[int, bytes]], list[tuple[int, int]]]:
        """As `split`, but a core has one part, durable or not, and its target is DURABLE."""
        parts, unmatched = self._interest.split(batch)
        whole: dict[int, bytes] = {}
        for target, part in parts:
            key = target if target & LOGGED else target | DURABLE
            known = whole.get(key)
            whole[key] = merged(known, part) if known is not None else part
        return list(whole.items()), unmatched

    def wants(self, topic: bytes) -> bool:
        """Say whether some core wants what is published to a topic, for its subscribers."""
        wanted = self._wanted.get(topic)
        if wanted is None:
            if len(self._wanted) >= self._route_cache:
                self._wanted.clear()
            wanted = any(not target & LOGGED for target in self._resolve(topic))
            wanted = wanted or self.is_orphaned(topic)
            self._wanted[topic] = wanted
        return wanted

    def want(self, source: int, topic_filter: bytes, durable: bool) -> None:
        """Core `source` wants what matches from now on."""
        unconfirmed = self._unconfirmed.get(source)
        if unconfirmed is not None:
            unconfirmed.discard(topic_filter)
        targets = self._filters.get(topic_filter)
        target = source | DURABLE if durable else source
        if targets is None:
            targets = ()
            if is_wildcard(topic_filter):
                self._wild.add(topic_filter, topic_filter)
        elif target in targets:
            return
        others = [each for each in targets if each & CORE != source]
        self._filters[topic_filter] = self._shared((*others, target))
        self._forget(topic_filter)

    def unwant(self, source: int, topic_filter: bytes) -> None:
        """Core `source` no longer wants what matches."""
        targets = self._filters.get(topic_filter, ())
        left = tuple(each for each in targets if each & CORE != source)
        if len(left) == len(targets):
            return
        if left:
            self._filters[topic_filter] = self._shared(left)
        else:
            del self._filters[topic_filter]
            if is_wildcard(topic_filter):
                self._wild.discard(topic_filter, topic_filter)
        self._forget(topic_filter)

    def decide_anew(self, topic: bytes | None = None) -> None:
        """Another rule holds for a topic, None: for any; or another core keeps its log."""
        self._interest.forget(topic)

    def _forget(self, topic_filter: bytes) -> None:
        self._wanted.clear()
        topic_cache.forget(self._interest, self._interest.targets, topic_filter)

    def _resolve(self, topic: bytes) -> tuple[int, ...]:
        targets = set(self._filters.get(topic, ()))
        for topic_filter in self._wild.match(topic):
            targets.update(self._filters[topic_filter])
        log_core = self._log_core(topic)
        if log_core is not None:
            targets.add(log_core | LOGGED)
        return self._shared(
            tuple(each for each in targets if each & DURABLE or each | DURABLE not in targets)
        )

    def _shared(self, targets: tuple[int, ...]) -> tuple[int, ...]:
        key = tuple(sorted(targets))
        if len(self._tuples) >= _MOST_TUPLES:
            self._tuples.clear()
        return self._tuples.setdefault(key, key)
