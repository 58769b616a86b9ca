"""One simulation: a node and its clients, to which chance happens, and then a calm end.

One `random.Random(seed)` decides everything, so that a seed is a whole history.
"""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from random import Random
from typing import Final
from unittest.mock import patch

from robustmq.broker import cursors, filter_log, inbox
from robustmq.config import Config, Flush, Runtime, Storage
from robustmq.mqtt.packets import V5, V311, Publish, Will
from robustmq.mqtt.reasons import Reason
from robustmq.mqtt.session import Session
from robustmq.mqtt.session_table import Opened
from robustmq.policy.principal import Principal
from robustmq.settings.mqtt import MqttKeepAlive, MqttProtocol, MqttRuntime
from tests.simulation.account import SHARED, SHARED_TOPICS, Account, Message
from tests.simulation.client import V3_EXPIRY, Client, Plan
from tests.simulation.machine import FULL, PLACES, Budget, Core, Died, Machine

TOPICS: Final = ("a", "a/b", "b/c")
FILTERS: Final = ("a", "a/b", "a/#", "+/c", "#", "r/#", "d/+")
WATCHER: Final = "watcher"
ROUNDS: Final = 3_000
"""Rounds of everybody after which a node that has not come to rest never will."""
_LONG_S: Final = 1_000_000
_LEFT: Final = (b"N", b"E", b"H", b"D")
"""Rows that may be left: numbers, how far other cores were heard, how many are delayed."""
_DEBTS: Final = (b"L", b"B", b"X", b"O", b"K", b"u")
"""Rows of what somebody has not got: runs, exchanges, what must come once, removals, QoS 2 ids."""


class World:
    """A seed's node, clients and account; `trace` hears what happens, a line each."""

    def __init__(self, seed: int, trace: Callable[[str], None] | None = None) -> None:
        rng = self.rng = Random(seed)
        self._lines = trace
        self.cores = rng.choice((1, 2, 2, 3, 4))
        self.flush: Flush = rng.choice(("interval", "always"))
        self.steps = rng.randint(100, 350)
        self.reckless = rng.choice((0, 1, 1, 3))
        """How often cores die and disks fill up."""
        self.patches = {
            (cursors, "READ_AHEAD"): rng.choice((2, 5, 1_000)),
            (filter_log, "_KNOWN_ROWS"): rng.choice((1, 4, 256)),
            (inbox, "_BUDGET"): rng.choice((1, 3, 1_000)),
        }
        config = Config(
            runtime=Runtime(
                max_batch_bytes=rng.choice((150, 1 << 20)),
                pressure_bytes=rng.choice((400, 1 << 20)),
            ),
            storage=Storage(flush=self.flush),
            mqtt_runtime=MqttRuntime(
                protocol=MqttProtocol(
                    default_session_expiry_interval=V3_EXPIRY,
                    max_session_expiry_interval=_LONG_S,
                    max_inflight=rng.choice((3, 1_000)),
                    receive_max=rng.choice((8, 1_024)),
                ),
                keep_alive=MqttKeepAlive(max_time=65_535),
            ),
        )
        self.account = Account(lambda: self.machine.now_ms, self.trace)
        self.account.shares = self._shares
        self.account.is_durable = lambda name: self.clients[name].is_durable
        self.machine: Machine
        self.clients: dict[str, Client] = {}
        self._full: set[int] = set()
        self._restarting: list[int] = []
        room = rng.choice((300, 1 << 20))
        with self._patched():
            self.machine = self._machine(config, room)
        for index in range(rng.randint(2, 5)):
            self._add(f"c{index}", rng.choice((V311, V5, V5)))
        self._add(WATCHER, V5)
        watcher = self.clients[WATCHER]
        watcher.plan = Plan(False, _LONG_S, None, 0, rng.choice((1, 100)))

    def _machine(self, config: Config, room: int) -> Machine:
        return Machine(config, self.cores, room, self._watch)

    def trace(self, line: str) -> None:
        """Tell what happens."""
        if self._lines is not None:
            self._lines(f"{self.machine.now_ms - 1_700_000_000_000:>7} {line}")

    def _patched(self) -> ExitStack:
        stack = ExitStack()
        for (module, name), value in self.patches.items():
            stack.enter_context(patch.object(module, name, value))
        return stack

    def _add(self, name: str, version: int) -> None:
        self.clients[name] = Client(
            name, version, self.machine, self.account, self.rng, self.trace, self._plan(version)
        )

    def _plan(self, version: int) -> Plan:
        rng = self.rng
        clean = rng.random() < 0.25
        expiry = 0 if clean else V3_EXPIRY
        if version == V5:
            expiry = rng.choice((0, 5, 40, 600, 600))
        delay = rng.choice((None, None, 0, 3, 20))
        return Plan(clean, expiry, delay, rng.randint(1, 2), rng.choice((1, 2, 50)))

    # ------------------------------------------------------------------ what the node tells

    def _watch(self, core: Core) -> None:
        """Hear from a new life of a core when it opens sessions and leaves them."""
        sessions = core.mqtt.sessions
        views, wills = self.account.views, self.account.wills
        really_open, really_detach = sessions.open, sessions.detach

        def opened(
            principal: Principal,
            clean_start: bool,
            *,
            expiry: int = 0,
            will: Will | None = None,
            version: int = 0,
            generation: int = 0,
        ) -> Opened:
            found = really_open(
                principal,
                clean_start,
                expiry=expiry,
                will=will,
                version=version,
                generation=generation,
            )
            client_id = principal.client_id
            number = int(will.payload[1:]) if will is not None else None
            commit = core.table.next_commit
            views.opened(client_id)
            wills.opened(client_id, number, clean=clean_start, expiry=expiry, commit=commit)
            self.trace(f"core {core.place} opens {client_id}, commit {commit}")
            return found

        def detach(session: Session, with_will: bool) -> None:
            commit = core.table.next_commit
            expiry = session.expiry
            really_detach(session, with_will)
            views.left(session.client_id, commit)
            wills.left(session.client_id, with_will=with_will, expiry=expiry, commit=commit)
            self.trace(
                f"core {core.place} leaves {session.client_id}, "
                f"{'with' if with_will else 'without'} will, commit {commit}"
            )

        sessions.open = opened  # type: ignore[method-assign]
        sessions.detach = detach  # type: ignore[method-assign]

    def _shares(self) -> bool:
        tie = self.clients[WATCHER].ties.get(SHARED)
        return tie is not None and tie.settled

    def _homed(self, core: int) -> set[str]:
        return {name for name in self.clients if self.machine.home_of(name) == core}

    # ------------------------------------------------------------------ what happens

    def run(self) -> list[str]:
        """Let it all happen; returns the promises that were broken."""
        with self._patched():
            self._settle_in()
            for _ in range(self.steps):
                self._step()
                if self.account.faults:
                    return self.account.faults
            self._finish()
        return self.account.faults

    def _settle_in(self) -> None:
        watcher = self.clients[WATCHER]
        watcher.connect()
        self._calm(lambda: watcher.satisfied)
        watcher.want("w/#", 2)
        watcher.want("a/#", 1)
        watcher.want(SHARED, 1)
        self._calm(lambda: watcher.satisfied)

    def _step(self) -> None:
        rng = self.rng
        chance = rng.random()
        if chance < 0.55:
            self._turn(rng.randrange(self.cores))
        elif chance < 0.90:
            self._act(self.clients[rng.choice(list(self.clients))])
        elif chance < 0.95:
            self._sync(rng.randrange(self.cores))
        elif chance < 0.97:
            self.machine.now_ms += rng.choice((10, 60, 300, 2_000, 2_000, 12_000))
        elif self.machine.down and chance < 0.985:
            self._restart(rng.choice(list(self.machine.down)))
        elif rng.random() < 0.15 * self.reckless:
            self._misfortune()

    def _turn(self, index: int) -> None:
        rng = self.rng
        budget = Budget(rng.choice((1, 7, 40, 1 << 30)), rng.choice((0, 1, 3, 1 << 30)))
        if index in self.machine.cores:
            self.machine.turn(index, rng, budget)

    def _sync(self, index: int) -> None:
        if index in self.machine.cores:
            table = self.machine.cores[index].table
            table.settle()
            table.completed()

    def _misfortune(self) -> None:
        rng = self.rng
        index = rng.randrange(self.cores)
        core = self.machine.cores.get(index)
        chance = rng.random()
        if chance < 0.25 and core is not None:
            self._fill(index)
        elif chance < 0.45:
            self._die_together()
        elif core is not None:
            place = rng.choice((None, *PLACES))
            self.trace(f"core {index} dies at {place}")
            with suppress(Died):
                if place is not None:
                    self.machine.turn(index, rng, Budget(), place)
            self._kill(index, power=False)

    def _fill(self, index: int) -> None:
        table = self.machine.cores[index].table
        if index in self._full:
            self.trace(f"the disk of core {index} has room again")
            self._full.discard(index)
            table.refuse(None)
            table.completed()
        else:
            self.trace(f"the disk of core {index} is full")
            self._full.add(index)
            self.account.was_full = True
            table.refuse(FULL)

    def _die_together(self) -> None:
        rng = self.rng
        node = rng.randrange(self.machine.nodes)
        self.trace(f"all cores of node {node} die")
        self._die_of(node)
        if rng.random() < 0.5:
            self.machine.now_ms += rng.choice((100, 3_000, 8_000))
        self._start_node(node)

    def _die_of(self, node: int) -> None:
        rng = self.rng
        power = self.flush == "always" and rng.random() < 0.6
        self.trace(f"power cut: {power}")
        for index in self.machine.places(node):
            if index not in self.machine.cores:
                continue
            if rng.random() < 0.5:
                with suppress(Died):
                    self.machine.turn(index, rng, Budget(), rng.choice(PLACES))
            self._kill(index, power=power and rng.random() < 0.7)

    def _start_node(self, node: int) -> None:
        self.machine.start_node(node)
        for index in self.machine.places(node):
            self._started(index)

    def _kill(self, index: int, *, power: bool) -> None:
        table = self.machine.cores[index].table
        written = table.durable if power else table.written
        if power or index in self._full:
            self.account.may_forget()
        self.trace(f"core {index} is dead, its disk has the commits up to {written}")
        self.machine.kill(index, power)
        self._full.discard(index)
        self.account.crashes += 1
        self.account.lets_go(self.clients)
        self.account.views.crashed(self._homed(index), written)
        self.account.wills.crashed(self._homed(index), written)

    def _restart(self, index: int) -> None:
        self.trace(f"core {index} starts")
        self.machine.start(index)
        self._started(index)

    def _started(self, index: int) -> None:
        commit = self.machine.cores[index].table.next_commit
        self.account.views.restarted(self._homed(index), commit)
        self.account.wills.restarted(self._homed(index), commit)

    # ------------------------------------------------------------------ what clients do

    def _act(self, client: Client) -> None:
        rng = self.rng
        chance = rng.random()
        if client.wire is None:
            if chance < 0.5:
                if client.name != WATCHER and not client.next_plan and rng.random() < 0.3:
                    client.next_plan = self._plan(client.version)
                client.connect()
        elif chance < 0.35:
            client.read(rng.choice((3, 20, 1 << 30)))
        elif chance < 0.6:
            client.answer(rng.choice((1, 2, 1 << 30)))
        elif chance < 0.64:
            client.drop()
            if rng.random() < 0.5:
                client.connect()
        elif client.online and client.name != WATCHER:
            self._act_online(client)

    def _act_online(self, client: Client) -> None:
        rng = self.rng
        chance = rng.random()
        if chance < 0.6:
            for _ in range(rng.choice((1, 1, 3))):
                if len(client.pending) < 6:
                    self._publish(client)
        elif chance < 0.85:
            topic_filter = rng.choice((*FILTERS, SHARED))
            tie = client.ties.get(topic_filter)
            if topic_filter == SHARED:
                if tie is None:
                    client.want(topic_filter, 1)
            elif tie is None:
                client.want(topic_filter, rng.choice((0, 1, 1, 2, 2)))
            elif tie.settled and tie.qos and tie.wanted:
                client.want(topic_filter, rng.randint(1, 2))
            elif not tie.asked:
                client.ask(topic_filter)
        elif chance < 0.93:
            settled = [name for name, tie in client.ties.items() if tie.settled and tie.wanted]
            if settled:
                client.unwant(rng.choice(settled))
        elif client.version == V5:
            reason = rng.choice((Reason.NORMAL_DISCONNECTION, Reason.DISCONNECT_WITH_WILL))
            client.leave(reason, rng.choice((None, None, 0, 30)))
        else:
            client.leave()

    def _publish(self, client: Client) -> None:
        rng = self.rng
        kind = rng.random()
        qos = rng.choice((0, 1, 1, 2, 2))
        message = Message(len(self.account.messages), client.name, "", qos, False, b"")
        message.payload = b"%d" % message.number
        topic = message.topic = rng.choice((*TOPICS, *SHARED_TOPICS))
        if kind < 0.2:
            # Of several QoS the last one to be repeated would be the one that stays.
            topic = message.topic = f"r/{client.name}/{qos}"
            message.retain = True
            if rng.random() < 0.2:
                message.payload = b""
        elif kind < 0.3:
            delay = rng.choice((0, 1, 15))
            message.topic = f"d/{client.name}"
            message.due_ms = self.machine.now_ms + delay * 1_000
            topic = f"$delayed/{delay}/{message.topic}"
        client.publish(topic, message)

    # ------------------------------------------------------------------ the end

    def _finish(self) -> None:
        """Mend everything, let everybody have what is theirs, and look at what is left."""
        self._mend()
        everybody = list(self.clients.values())
        self._calm(lambda: all(client.satisfied for client in everybody))
        for _ in range(3):
            self.machine.now_ms += 10_000
            self._calm(lambda: all(client.satisfied for client in everybody))
        for what in self.account.lost():
            self.account.fault(f"lost: {what}")
        self.account.wills.check(WATCHER, complete=self._is_complete)
        if not self.account.faults:
            self._check_debts()
        if not self.account.faults:
            self._check_retained()
        if not self.account.faults:
            self._check_rows()
        may_be_refused = self.account.was_full or self.account.was_moved
        for core in self.machine.cores.values():
            for complaint in core.complaints:
                if not (may_be_refused and "could not be stored" in complaint):
                    self.account.fault(f"a complaint about {complaint}")

    @property
    def _is_complete(self) -> bool:
        """Whether nobody can have missed a will."""
        return not self.account.was_full

    def _calm(self, done: Callable[[], bool]) -> None:
        """Let everybody do what there is to do until nothing is; time passes slowly."""
        for _ in range(ROUNDS):
            active = self._hears()
            for index in range(self.cores):
                active |= self.machine.turn(index, self.rng)
                self._sync(index)
            for client in self.clients.values():
                active |= self._go_on(client)
            if self.account.faults or (not active and self.machine.rests and done()):
                return
            self.machine.now_ms += 5 if active else 60
        self.account.fault(f"no rest: {[c for c in self.clients.values() if not c.satisfied]}")

    def _mend(self) -> None:
        self.trace("all is mended")
        for index in list(self._full):
            self._fill(index)
        for index in list(self.machine.down):
            self._restart(index)

    def _hears(self) -> bool:
        """Let every core hear what it has not; says whether there was anything."""
        return False

    def _go_on(self, client: Client) -> bool:
        if client.leaving:
            return False
        if client.wire is None:
            client.connect()
            return True
        active = client.read()
        active |= client.answer()
        if client.online:
            for topic_filter, tie in client.ties.items():
                if not tie.asked:
                    client.ask(topic_filter)
                    active = True
        return active

    def _check_retained(self) -> None:
        self._add("reader", V5)
        reader = self.clients["reader"]
        reader.plan = Plan(True, 0, None, 0, 100)
        reader.connect()
        self._calm(lambda: reader.satisfied)
        reader.want("r/#", 1)
        self._calm(lambda: reader.satisfied)
        self.account.check_retained(reader.retained)
        for topic in reader.retained:
            reader.send(Publish(topic.encode(), b"", 0, True))
        self._calm(lambda: reader.satisfied)

    def _check_debts(self) -> None:
        """Everybody has everything: what was owed is not on any disk any more.

        Cursors move on when somebody acknowledges something, so each session is given one more.
        """
        self._add("sender", V5)
        sender = self.clients["sender"]
        sender.plan = Plan(True, 0, None, 0, 100)
        sender.connect()
        self._calm(lambda: sender.satisfied)
        for topic in (*TOPICS, *SHARED_TOPICS, "r/last", "d/last", "w/last"):
            number = len(self.account.messages)
            sender.publish(topic, Message(number, "sender", topic, 1, False, b"%d" % number))
        for _ in range(3):
            self._calm(lambda: all(client.satisfied for client in self.clients.values()))
            self.machine.now_ms += 500
        for index, core in self.machine.cores.items():
            left = [key for key, _ in core.table.walk(b"", b"\xff" * 20) if key[:1] in _DEBTS]
            if left:
                self.account.fault(f"debts are left on core {index}: {left}")

    def _check_rows(self) -> None:
        """Everybody has everything and ends its session: no row may stay."""
        for client in self.clients.values():
            client.leave(expiry=0)
            client.leaving = True
            client.next_plan = None
        self._calm(lambda: True)
        for client in self.clients.values():
            if client.version < V5:
                client.next_plan = client.plan._replace(clean=True, expiry=0, will_delay=None)
                client.connect()
                client.leaving = False
        self._calm(lambda: True)
        for client in self.clients.values():
            client.leave()
            client.leaving = True
        for _ in range(3):
            self.machine.now_ms += 500
            self._calm(lambda: True)
        for index, core in self.machine.cores.items():
            left = [key for key, _ in core.table.walk(b"", b"\xff" * 20) if key[:1] not in _LEFT]
            left += [key for key, _ in core.table.walk(b"D\0", b"E")]
            if left:
                self.account.fault(f"rows are left on core {index}: {left}")
