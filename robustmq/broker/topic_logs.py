"""The topic logs of a core: what is kept of topics whose rule wants it, for readers to come.

Rows: `Q` name -> the log's number and engine. `P` number -> who has appended what (`Shard.note`).
A number is never given again. A log stays in the engine in which it was made, whatever its rule
says later; without a rule it is kept as it is. Logs in memory have no rows.

A batch is confirmed when its log's high watermark has passed it, and the log's row is durable.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, Protocol

from robustmq import metrics
from robustmq._kernel.batch import max_qos
from robustmq._kernel.turn import Turn
from robustmq.broker import frames, log_rows
from robustmq.broker.api import LogBounds
from robustmq.broker.state import State
from robustmq.broker.timers import Timers
from robustmq.config import Engine, Storage, TopicRule
from robustmq.errors import Refusal, Refused
from robustmq.message.batch import count_of
from robustmq.policy.topic_rules import TopicRules, keeps_log, log_name
from robustmq.shard.shard import Shard
from robustmq.storage.log import Log, StoredBatch, Unwritable

_NUMBERS: Final = 16
"""Numbers of logs that are reserved at a time."""
_NOTE_BYTES: Final = 1 << 18
"""Bytes appended to a log between two notes: a restart reads so much of it, hardly more."""
_LOGS_PER_TURN: Final = 64
"""Logs of which one turn looks for what is to be dropped, at most."""


class LogStore(Protocol):
    """The engines of this core."""

    def open(self, number: int, engine: Engine, rule: TopicRule) -> Log:
        """Open the log of a number in an engine, or make it. Raises Unwritable.

        In memory it is always a new one, whatever the number.
        """

    def refusal(self, engine: Engine) -> Refused | None:
        """Why an engine takes nothing now; None while it does."""


class NoStore:
    """A `LogStore` that has no engine."""

    def open(self, number: int, engine: Engine, rule: TopicRule) -> Log:
        """Refuse."""
        del number, engine
        sentence = f"this core keeps no logs, and the rule for {rule.filter} wants one"
        raise Unwritable(Refused(Refusal.UNAVAILABLE, sentence))

    def refusal(self, engine: Engine) -> Refused | None:
        """Nothing waits here."""
        del engine
        return None


class _Note(NamedTuple):
    """Who had appended what when the log ended at `offset`."""

    offset: int
    value: bytes


class _Waiting(NamedTuple):
    """Whoever asked to keep what ends at `offset`."""

    offset: int
    core: int
    call: int
    once: bool


class _TopicLog:
    """One log; `engine` None: in memory. `is_listed`: its row is durable.

    `waiting` want to hear when it has come so far.
    """

    __slots__ = ("engine", "is_listed", "is_noted", "note", "shard", "unnoted", "waiting")

    def __init__(self, shard: Shard, engine: Engine | None, is_listed: bool) -> None:
        self.shard = shard
        self.engine = engine
        self.is_listed = is_listed
        self.waiting: deque[_Waiting] = deque()
        self.unnoted = 0
        self.note: _Note | None = None
        self.is_noted = True

    def draw_note(self) -> None:
        """Note who has appended what, to be written when all of it is durable."""
        if self.engine is not None and not self.is_noted and self.note is None:
            self.note = _Note(self.shard.end_offset, self.shard.note())
            self.is_noted = True
            self.unnoted = 0


class TopicLogs:
    """The logs that this core keeps, by name (`policy.topic_rules.log_name`)."""

    def __init__(
        self,
        turn: Turn,
        state: State,
        *,
        rules: TopicRules,
        storage: Storage,
        store: LogStore,
    ) -> None:
        self._turn = turn
        self._state = state
        self._rules = rules
        self._storage = storage
        self._store = store
        self._logs: dict[bytes, _TopicLog] = {}
        self._moving: dict[_TopicLog, None] = {}
        self._due: dict[_TopicLog, None] = {}
        self._is_watched = False
        self.timers: Timers
        self.confirm: Callable[[int, int, int], None]
        """Called with (core, call, code) for every `keep` frame, once."""

    # ------------------------------------------------------------------ opening

    def restore(self) -> None:
        """After a restart: open all logs. Raises Unwritable and Corrupt when one cannot be."""
        for key, value in list(self._state.walk(b"Q", b"R")):
            name = key[1:]
            number, engine = log_rows.decode_listed(value)
            rule = self._rules.of_log(name)
            shard = Shard(number, self._store.open(number, engine, rule))
            shard.recover(self._state.get(log_rows.note_key(number)))
            self._add(name, _TopicLog(shard, engine, True))

    def _make(self, name: bytes) -> _TopicLog:
        """Make a log. Raises Unwritable."""
        rule = self._rules.of_log(name)
        if len(self._logs) >= self._storage.max_topic_logs:
            most = f"this core keeps {self._storage.max_topic_logs} logs (storage.max_topic_logs)"
            raise Unwritable(Refused(Refusal.QUOTA_EXCEEDED, most))
        if rule.engine == "memory":
            memory = Shard(0, self._store.open(0, rule.engine, rule))
            return self._add(name, _TopicLog(memory, None, True))
        refusal = self._state.refusal
        if refusal is not None:
            raise Unwritable(refusal)
        number = self._state.next_number(b"shard", _NUMBERS)
        log = self._store.open(number, rule.engine, rule)
        if log.end_offset:
            # The number was given before a crash that came before its row.
            log.reset(0)
        self._state.put(log_rows.listed_key(name), log_rows.encode_listed(number, rule.engine))
        made = self._add(name, _TopicLog(Shard(number, log), rule.engine, False))
        self._state.then(partial(self._listed, made))
        return made

    def _add(self, name: bytes, log: _TopicLog) -> _TopicLog:
        self._logs[name] = log
        if not self._is_watched:
            self._is_watched = True
            self._watch()
        return log

    def _listed(self, log: _TopicLog) -> None:
        log.is_listed = True
        self._moving[log] = None

    # ------------------------------------------------------------------ keeping

    def on_keep(self, source: int, frame: bytes) -> None:
        """Append what a core asks to keep, unless it was; it is confirmed when it is safe."""
        call, name, batch = frames.read_keep(frame)
        log = self._logs.get(name)
        try:
            if log is None:
                log = self._make(name)
            if log.shard.append(batch, self._turn.now_ms):
                log.unnoted += len(batch)
                log.is_noted = False
        except Unwritable as error:
            self._turn.row[metrics.MESSAGES_DROPPED_REFUSED] += count_of(batch)
            self.confirm(source, call, error.refused.code)
            return
        # A repeat may not be safe yet either.
        log.waiting.append(_Waiting(log.shard.end_offset, source, call, max_qos(batch) == 2))
        self._moving[log] = None
        if log.unnoted >= _NOTE_BYTES:
            log.draw_note()

    @property
    def is_active(self) -> bool:
        """Whether some log has something that is not confirmed."""
        return bool(self._moving)

    def settle(self) -> bool:
        """After a commit: confirm what has become durable; says whether there was anything."""
        if not self._moving:
            return False
        found = False
        for log in list(self._moving):
            reached = log.shard.high_watermark
            waiting = log.waiting
            while waiting and log.is_listed and waiting[0].offset <= reached:
                done = waiting.popleft()
                self.confirm(done.core, done.call, 0)
                found = True
            if waiting and log.engine is not None:
                found |= self._give_up(log, self._store.refusal(log.engine))
            if log.note is not None and log.note.offset <= reached:
                self._state.put(log_rows.note_key(log.shard.number), log.note.value)
                log.note = None
            if not log.waiting and log.note is None:
                del self._moving[log]
        return found

    def _give_up(self, log: _TopicLog, refusal: Refused | None) -> bool:
        """While writing fails: what was appended is written when the disk heals, if ever.

        So nobody may be told to publish anew what must be there once.
        """
        if refusal is None or refusal.code is Refusal.BUSY:
            return False
        given_up = [each for each in log.waiting if not each.once]
        log.waiting = deque(each for each in log.waiting if each.once)
        for each in given_up:
            self.confirm(each.core, each.call, refusal.code)
        return bool(given_up)

    # ------------------------------------------------------------------ dropping

    @property
    def busy(self) -> bool:
        """Whether there is more to drop."""
        return bool(self._due) and self._state.refusal is None

    def run(self) -> bool:
        """After a commit: apply the bounds of retention, and compaction, as a turn's budget goes.

        Done also while nothing can be written, in files at least: it may be what makes room.
        Says whether there was anything to do.
        """
        if not self._due:
            return False
        budget = self._storage.retain_budget_bytes
        share = budget // _LOGS_PER_TURN
        while self._due and budget > 0:
            log = next(iter(self._due))
            del self._due[log]
            before = log.shard.log.size_bytes
            if log.shard.log.retain(self._turn.now_ms, budget):
                # The others have their turn first.
                self._due[log] = None
                return True
            budget -= share + max(before - log.shard.log.size_bytes, 0)
        return True

    def _watch(self) -> None:
        """Look at all logs now and then: what is old goes although nothing comes."""
        for log in self._logs.values():
            # Compaction may take away what tells a repeat: a note goes before it.
            log.draw_note()
            if log.note is not None:
                self._moving[log] = None
            self._due[log] = None
        self.timers.at(self._turn.now_ms + self._storage.retain_interval_ms, self._watch)

    def close(self) -> None:
        """The core stops: note who has appended what, for a quick start."""
        for log in self._logs.values():
            log.draw_note()
            if log.note is not None:
                self._moving[log] = None
        self.settle()

    # ------------------------------------------------------------------ reading

    def read(self, topic: bytes, offset: int, max_bytes: int) -> list[StoredBatch]:
        """See `api.Logs.read`."""
        log = self._find(topic)
        return [] if log is None else log.shard.read(offset, max_bytes)

    def bounds(self, topic: bytes) -> LogBounds | None:
        """See `api.Logs.bounds`."""
        log = self._find(topic)
        if log is None:
            return None
        shard = log.shard
        return LogBounds(shard.start_offset, shard.end_offset, shard.high_watermark)

    def _find(self, topic: bytes) -> _TopicLog | None:
        rule = self._rules.of(topic)
        return self._logs.get(log_name(rule, topic)) if keeps_log(rule) else None
