"""The topic logs of a core: what is kept of topics whose rule wants it, for readers to come.

Rows: `Q` name -> the log's number and engine. `P` number -> who has appended what (`Shard.note`).
A number is never given again. A log stays in the engine in which it was made, whatever its rule
says later; without a rule it is kept as it is. Logs in memory have no rows.

A batch is confirmed when its log's high watermark has passed it, and the log's row is durable.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Final, Protocol

from robustmq import metrics
from robustmq._kernel.batch import max_qos
from robustmq._kernel.turn import Turn
from robustmq.broker import frames, log_rows
from robustmq.broker.api import LogBounds
from robustmq.broker.state import State
from robustmq.broker.timers import Timers
from robustmq.broker.topic_log import TopicLog, Waiting
from robustmq.config import Engine, Storage, TopicRule
from robustmq.errors import Refusal, Refused
from robustmq.message.batch import count_of
from robustmq.policy.topic_rules import TopicRules, keeps_log, log_name, own_log
from robustmq.shard.shard import Shard
from robustmq.storage.log import Log, StoredBatch, Unwritable

_NUMBERS: Final = 16
"""Numbers of logs that are reserved at a time."""
_STRICT_MS: Final = 300_000
"""Milliseconds after a start in which unknown producers begin with their first sequence."""
_LOGS_PER_TURN: Final = 64
"""Logs of which one turn looks for what is to be dropped, at most."""


class LogStore(Protocol):
    """The engines of this core."""

    def open(self, number: int, engine: Engine, rule: TopicRule) -> Log:
        """Open the log of a number in an engine, or make it. Raises Unwritable.

        In memory it is always a new one, whatever the number.
        """

    def configure(self, log: Log, rule: TopicRule) -> None:
        """Keep an open log as a rule says from now on."""

    def remove(self, number: int, engine: Engine) -> None:
        """Forget a log and everything in it, with the next commit."""

    def prune(self, listed: Collection[tuple[int, Engine]]) -> None:
        """Forget all logs but these: a crash has kept others from being removed."""

    def refusal(self, engine: Engine) -> Refused | None:
        """Why an engine takes nothing now; None while it does."""


class NoStore:
    """A `LogStore` that has no engine."""

    def open(self, number: int, engine: Engine, rule: TopicRule) -> Log:
        """Refuse."""
        del number, engine
        sentence = f"this core keeps no logs, and the rule for {rule.filter} wants one"
        raise Unwritable(Refused(Refusal.UNAVAILABLE, sentence))

    def configure(self, log: Log, rule: TopicRule) -> None:
        """There is none."""

    def remove(self, number: int, engine: Engine) -> None:
        """There is none."""

    def prune(self, listed: Collection[tuple[int, Engine]]) -> None:
        """There is none."""

    def refusal(self, engine: Engine) -> Refused | None:
        """Nothing waits here."""
        del engine
        return None


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
        self._logs: dict[bytes, TopicLog] = {}
        self._moving: dict[TopicLog, None] = {}
        self._due: dict[TopicLog, None] = {}
        self._fetching: dict[TopicLog, None] = {}
        self._is_watched = False
        self._strict_until_ms = 0
        self.timers: Timers
        self.confirm: Callable[[int, int], Callable[[int], None]]
        """Called with (core, call) of each `keep` frame; what it returns is told 0 or a Refusal."""
        self.kept: Callable[[bytes, bool], None] = lambda _topic, _is_there: None
        """Hears of a topic that has a log of its own here, or has it no more."""

    # ------------------------------------------------------------------ opening

    def restore(self) -> None:
        """After a restart: open all logs. Raises Unwritable and Corrupt when one cannot be."""
        self._strict_until_ms = self._turn.now_ms + _STRICT_MS
        for key, value in list(self._state.walk(b"Q", b"R")):
            name = key[1:]
            row = log_rows.decode_listed(value)
            rule = self._rules.of_log(name)
            log = self._store.open(row.number, row.engine, rule)
            shard = Shard(row.number, log, self._strict_until_ms)
            shard.epochs.decode(row.epochs)
            shard.recover(self._state.get(log_rows.note_key(row.number)), self._turn.now_ms)
            made = TopicLog(name, shard, row.engine, is_listed=True, rule=rule)
            self._add(made)
        self._store.prune(
            {
                (log.shard.number, log.engine)
                for log in self._logs.values()
                if log.engine is not None
            }
        )

    def find(self, name: bytes) -> TopicLog | None:
        """Return the log of a name; None when there is none here."""
        return self._logs.get(name)

    def walk(self) -> Iterator[TopicLog]:
        """Yield all logs."""
        yield from self._logs.values()

    def make(self, name: bytes, rule: TopicRule) -> TopicLog:
        """Make a log that is not there. Raises Unwritable."""
        if len(self._logs) >= self._storage.max_topic_logs:
            most = f"this core keeps {self._storage.max_topic_logs} logs (storage.max_topic_logs)"
            raise Unwritable(Refused(Refusal.QUOTA_EXCEEDED, most))
        if rule.engine == "memory":
            memory = Shard(0, self._store.open(0, rule.engine, rule), self._strict_until_ms)
            return self._add(TopicLog(name, memory, None, is_listed=True, rule=rule))
        refusal = self._state.refusal
        if refusal is not None:
            raise Unwritable(refusal)
        number = self._state.next_number(b"shard", _NUMBERS)
        log = self._store.open(number, rule.engine, rule)
        if log.end_offset:
            # The number was given before a crash that came before its row.
            log.reset(0)
        shard = Shard(number, log, self._strict_until_ms)
        made = self._add(TopicLog(name, shard, rule.engine, is_listed=False, rule=rule))
        self.list_row(made)
        self._state.then(partial(self._listed, made))
        return made

    def configure(self, log: TopicLog, rule: TopicRule) -> None:
        """Keep a log as a rule says from now on; it stays in its engine."""
        if rule != log.rule:
            log.rule = rule
            self._store.configure(log.shard.log, rule)

    def remove(self, log: TopicLog) -> None:
        """Forget a log and everything in it, and answer all who wait for it."""
        del self._logs[log.name]
        self._moving.pop(log, None)
        self._due.pop(log, None)
        if log.engine is not None:
            self._state.delete(log_rows.listed_key(log.name))
            self._state.delete(log_rows.note_key(log.shard.number))
            self._store.remove(log.shard.number, log.engine)
        self._tell_kept(log, is_there=False)
        log.give_up(Refusal.TOPIC_INVALID)
        log.wake_all()

    def _tell_kept(self, log: TopicLog, *, is_there: bool) -> None:
        own = own_log(log.name)
        if own is not None and not own.partition:
            self.kept(own.topic, is_there)

    def trim(self, log: TopicLog, offset: int) -> None:
        """Forget what lies below an offset."""
        log.shard.release(offset)

    def is_warm(self, log: TopicLog, offset: int, max_bytes: int) -> bool:
        """Say whether a read would find its bytes in memory; otherwise who is parked hears it."""
        if log.shard.log.warm(offset, max_bytes):
            return True
        self._fetching[log] = None
        return False

    def list_row(self, log: TopicLog) -> None:
        """Have the row of a log written with the turn's commit."""
        if log.engine is not None:
            self._state.put(log_rows.listed_key(log.name), log_rows.encode_listed(*log.row))

    def _add(self, log: TopicLog) -> TopicLog:
        self._logs[log.name] = log
        self._tell_kept(log, is_there=True)
        if not self._is_watched:
            self._is_watched = True
            self._watch()
        return log

    def _listed(self, log: TopicLog) -> None:
        log.is_listed = True
        if self._logs.get(log.name) is log:
            self._moving[log] = None

    # ------------------------------------------------------------------ keeping

    def on_keep(self, source: int, frame: bytes) -> None:
        """Append what a core asks to keep, unless it was; it is confirmed when it is safe."""
        call, name, batch = frames.read_keep(frame)
        log = self._logs.get(name)
        confirm = self.confirm(source, call)
        try:
            if log is None:
                rule = self._rules.of_log(name)
                if own_log(name) is not None and not rule.own_shard:
                    # The topic was removed meanwhile: there is nothing to keep it in.
                    confirm(0)
                    return
                log = self.make(name, rule)
            count = log.shard.append(batch, self._turn.now_ms)
        except Unwritable as error:
            self._turn.row[metrics.MESSAGES_DROPPED_REFUSED] += count_of(batch)
            confirm(error.refused.code)
            return
        # A repeat may not be safe yet either.
        waiting = Waiting(log.shard.end_offset, confirm, max_qos(batch) == 2)
        self.appended(log, len(batch) if count else 0, waiting)

    def appended(self, log: TopicLog, size: int, waiting: Waiting | None) -> None:
        """So many bytes were appended to a log, 0: a repeat; `waiting` hears when it is safe."""
        if size:
            log.unnoted += size
            log.is_noted = False
        if waiting is not None:
            log.waiting.append(waiting)
        self._moving[log] = None
        if log.unnoted >= log.note_bytes:
            log.draw_note()

    def forget(self, is_gone: Callable[[int], bool]) -> None:
        """Cores have left for good, by their numbers: others with these begin anew."""
        for log in self._logs.values():
            if log.shard.forget(is_gone):
                # Else they would be known again after a restart.
                log.note, log.is_noted = None, False
                log.draw_note()
                self._moving[log] = None

    @property
    def is_active(self) -> bool:
        """Whether some log has something that is not confirmed, or not in memory yet."""
        return bool(self._moving or self._fetching)

    def settle(self) -> bool:
        """After a commit: confirm what has become durable; says whether there was anything."""
        if self._fetching:
            self._notice_fetched()
        if not self._moving:
            return False
        found = False
        refusals: dict[Engine, Refused | None] = {}
        for log in list(self._moving):
            reached = log.shard.high_watermark
            waiting = log.waiting
            while waiting and log.is_listed and waiting[0].offset <= reached:
                waiting.popleft().reply(0)
                found = True
            if waiting and log.engine is not None:
                if log.engine not in refusals:
                    refusals[log.engine] = self._store.refusal(log.engine)
                if refusals[log.engine] is not None:
                    found |= self._give_up(log, refusals[log.engine])
            if log.note is not None and log.note.offset <= reached:
                self._state.put(log_rows.note_key(log.shard.number), log.note.value)
                log.note = None
            found |= log.notice()
            if not log.waiting and log.note is None and reached == log.shard.end_offset:
                del self._moving[log]
        return found

    def _notice_fetched(self) -> None:
        for log in [each for each in self._fetching if not each.shard.log.is_fetching]:
            del self._fetching[log]
            log.wake_all()

    def _give_up(self, log: TopicLog, refusal: Refused | None) -> bool:
        """While writing fails: what was appended is written when the disk heals, if ever.

        So nobody may be told to publish anew what must be there once.
        """
        if refusal is None or refusal.code is Refusal.BUSY:
            return False
        given_up = [each for each in log.waiting if not each.once]
        log.waiting = deque(each for each in log.waiting if each.once)
        for each in given_up:
            each.reply(refusal.code)
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
            if log.shard.retain(self._turn.now_ms, budget):
                # The others have their turn first.
                self._due[log] = None
                return True
            budget -= share + max(before - log.shard.log.size_bytes, 0)
        return True

    def _watch(self) -> None:
        """Look at all logs now and then: what is old goes although nothing comes."""
        before_ms = self._turn.now_ms - self._storage.producer_expiry_ms
        for log in self._logs.values():
            log.shard.expire(before_ms, self._storage.max_producers)
            # Compaction may take away what tells a repeat: a note goes before it.
            if log.rule.compact or log.is_note_due:
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

    def _find(self, topic: bytes) -> TopicLog | None:
        rule = self._rules.of(topic)
        return self._logs.get(log_name(rule, topic)) if keeps_log(rule) else None
