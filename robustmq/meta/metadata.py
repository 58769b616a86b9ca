"""The machine of the metadata group: what nodes, administrators and the controller have decided.

Rows: `m<kind> NUL <name>` holds the index of the last change and the record's value, `k<key>`
likewise a key of the key-value store, `l<number>` who left with a node's number, `#` the index of
the last command and what there is.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from robustmq.errors import Refusal, Refused
from robustmq.meta import commands
from robustmq.meta.commands import Change, Command, Fence, Forget, Found, Leave, Register, SetKey
from robustmq.meta.machine import Store
from robustmq.meta.records import (
    CLUSTER,
    NODE,
    NODES,
    Cluster,
    Node,
    Record,
    encoded,
    node_of,
    node_record,
)

_RECORD: Final = b"m"
_KEY: Final = b"k"
_LEFT: Final = b"l"
_STATE: Final = b"#"


class _Row(Struct, array_like=True, frozen=True):
    index: int
    value: bytes


class _Left(Struct, array_like=True, frozen=True):
    incarnation: int = 0
    store: str = ""


class _State(Struct, array_like=True):
    index: int = 0
    count: int = 0
    keys: int = 0


class Key(NamedTuple):
    """A key of the key-value store, its value, and the index of its last change."""

    key: str
    value: bytes
    changed: int


class Decision(NamedTuple):
    """What a command changes, and the value of its outcome."""

    records: Sequence[Record] = ()
    value: bytes = b""


_encoder: Final = msgspec.msgpack.Encoder()
_rows: Final = msgspec.msgpack.Decoder(_Row)
_lefts: Final = msgspec.msgpack.Decoder(_Left)
_states: Final = msgspec.msgpack.Decoder(_State)


class Metadata:
    """Decides each command from the rows as they are, then writes what was decided.

    `on_applied(index, records)` hears of every command that was folded, what it changed with it;
    `on_reload()` that the rows may be other ones.
    """

    def __init__(self, store: Store) -> None:
        self.on_applied: Callable[[int, Sequence[Record]], None] = lambda _index, _records: None
        self.on_reload: Callable[[], None] = lambda: None
        self._store = store
        self._state = _State()
        self.reload()

    @property
    def index(self) -> int:
        """The index of the last command that was folded; 0: none was."""
        return self._state.index

    def reload(self) -> None:
        """See `Machine`."""
        data = self._store.get(_STATE)
        self._state = _states.decode(data) if data is not None else _State()
        self.on_reload()

    def apply(self, index: int, command: bytes) -> bytes:
        """See `Machine`."""
        try:
            wanted = commands.decode(command)
        except msgspec.MsgspecError:
            return self._written(index, (), commands.not_understood())
        if isinstance(wanted, SetKey):
            return self._written(index, (), self._set_key(index, wanted))
        decision = self.decide(wanted)
        if isinstance(decision, Refused):
            return self._written(index, (), commands.refused(decision))
        return self._written(index, decision.records, commands.done(decision.value))

    def records(self, kind: str | None = None) -> Iterator[Record]:
        """Yield all records, or those of a kind, by kind and name."""
        prefix = _RECORD if kind is None else _RECORD + kind.encode() + b"\0"
        for key, row in self._store.walk(prefix):
            of, _, name = key[1:].partition(b"\0")
            found = _rows.decode(row)
            yield Record(of.decode(), name.decode(), found.value, found.index)

    def record(self, kind: str, name: str) -> tuple[int, bytes] | None:
        """Return a record's last change and value; None when there is none."""
        row = self._row(kind, name)
        return None if row is None else (row.index, row.value)

    def keys(self, prefix: str, start: str = "") -> Iterator[Key]:
        """Yield the keys of the key-value store that begin with `prefix`, from `start` on."""
        for key, data in self._store.walk(_KEY + prefix.encode(), _KEY + start.encode()):
            row = _rows.decode(data)
            yield Key(key[1:].decode(), row.value, row.index)

    # ------------------------------------------------------------------ decide

    def decide(self, command: Command) -> Decision | Refused:
        """Say what a command changes now, or why it is refused; nothing is written."""
        match command:
            case Found():
                return self._found(command)
            case Register():
                return self._register(command)
            case Fence(number, incarnation):
                return self._fence(number, incarnation)
            case Leave(number):
                return self._leave(number)
            case Forget(number, incarnation):
                return self._forget(number, incarnation)
            case Change():
                return self._change(command)
            case SetKey():
                return self._checked_key(command)

    def _found(self, command: Found) -> Decision:
        row = self._row(CLUSTER, "")
        if row is not None:
            return Decision((), row.value)
        value = encoded(Cluster(id=command.id, name=command.name))
        return Decision((Record(CLUSTER, "", value),), value)

    def _register(self, command: Register) -> Decision | Refused:
        number = command.number
        if not 0 <= number < NODES:
            return _refuse(f"broker_id must be 0 to {NODES - 1} in a cluster, not {number}")
        row = self._row(CLUSTER, "")
        if row is not None and (of := msgspec.msgpack.decode(row.value, type=Cluster).id) != (
            command.cluster
        ):
            return _refuse(
                f"node {number} belongs to the cluster {command.cluster}, this is {of}: "
                "empty its data directory, or name the meta_addrs of its own cluster"
            )
        known = self._node(number)
        if known is not None and known.store != command.store:
            return _refuse(
                f"the number {number} is taken by a node with another data directory: choose "
                "another broker_id, or let the old node leave first"
            )
        if known is not None and known.state == "leaving":
            return _refuse(
                f"node {number} is leaving the cluster: to come again it begins with an empty data "
                "directory, when it is gone"
            )
        left = self._left(number)
        if known is None and left.store == command.store:
            return _refuse(
                f"node {number} has left the cluster: to come again it begins with an empty data "
                "directory"
            )
        node = Node(
            number=number,
            store=command.store,
            address=command.address,
            grpc_port=command.grpc_port,
            peer_port=command.peer_port,
            http_port=command.http_port,
            workers=command.workers,
            roles=command.roles,
            level=command.level,
            version=command.version,
            kafka_host=command.kafka_host,
            kafka_ports=command.kafka_ports,
            incarnation=known.incarnation if known is not None else left.incarnation + 1,
        )
        return Decision(() if node == known else (node_record(node),), encoded(node))

    def _fence(self, number: int, incarnation: int) -> Decision | Refused:
        node = self._node(number)
        if node is None or node.incarnation != incarnation or node.state != "live":
            return _refuse(f"node {number} is not live as incarnation {incarnation} any more")
        fenced = msgspec.structs.replace(node, state="fenced", incarnation=incarnation + 1)
        return Decision((node_record(fenced),), encoded(fenced))

    def _leave(self, number: int) -> Decision | Refused:
        node = self._node(number)
        if node is None:
            return _refuse(f"there is no node {number}")
        if node.state == "leaving":
            return Decision((), encoded(node))
        leaving = msgspec.structs.replace(node, state="leaving", incarnation=node.incarnation + 1)
        return Decision((node_record(leaving),), encoded(leaving))

    def _forget(self, number: int, incarnation: int) -> Decision | Refused:
        node = self._node(number)
        if node is None:
            return Decision()
        if node.state != "leaving" or node.incarnation != incarnation:
            return _refuse(f"node {number} is not leaving")
        return Decision((Record(NODE, str(number), None),))

    def _change(self, command: Change) -> Decision | Refused:
        for each in command.expected:
            row = self._row(each.kind, each.name)
            refused = self._expected(each.index, row, f"the {each.kind} {each.name}")
            if refused is not None:
                return refused
        reserved = next((each for each in command.records if each.kind in {NODE, CLUSTER}), None)
        if reserved is not None:
            return _refuse(f"records of the kind {reserved.kind} are not set like this")
        if command.most is not None:
            # Of several for one record the last counts.
            last = {(each.kind, each.name): each for each in command.records}
            more = sum(self._growth(each) for each in last.values())
            if more > 0 and self._state.count + more > command.most:
                return _too_many(command.most)
        return Decision(command.records)

    def _checked_key(self, command: SetKey) -> Decision | Refused:
        row = self._key(command.key)
        refused = self._expected(command.expected, row, f"the key {command.key}")
        if refused is not None:
            return refused
        is_more = command.value is not None and row is None
        most = command.most
        if is_more and most is not None and self._state.keys >= most:
            return _too_many(most)
        return Decision()

    @staticmethod
    def _expected(index: int | None, row: _Row | None, what: str) -> Refused | None:
        found = 0 if row is None else row.index
        if index is None or index == found:
            return None
        if not index:
            return _refuse(f"{what} exists already")
        return _refuse(f"{what} has been changed meanwhile: read it again")

    # ------------------------------------------------------------------ write

    def _written(self, index: int, records: Sequence[Record], result: bytes) -> bytes:
        for record in records:
            self._state.count += self._growth(record)
            key = _record_key(record.kind, record.name)
            if record.value is not None:
                self._store.put(key, _encoder.encode(_Row(index, record.value)))
                continue
            if record.kind == NODE and (node := self._node(int(record.name))) is not None:
                left = _Left(node.incarnation, node.store)
                self._store.put(_LEFT + record.name.encode(), _encoder.encode(left))
            self._store.delete(key)
        self._state.index = index
        self._store.put(_STATE, _encoder.encode(self._state))
        self.on_applied(index, records)
        return result

    def _set_key(self, index: int, command: SetKey) -> bytes:
        decision = self.decide(command)
        if isinstance(decision, Refused):
            return commands.refused(decision)
        key = _KEY + command.key.encode()
        existed = self._store.get(key) is not None
        self._state.keys += (command.value is not None) - existed
        if command.value is None:
            self._store.delete(key)
        else:
            self._store.put(key, _encoder.encode(_Row(index, command.value)))
        return commands.done()

    # ------------------------------------------------------------------ read

    def _growth(self, record: Record) -> int:
        """Return how many records more there are with this one: 1, 0 or -1."""
        if record.kind in {NODE, CLUSTER}:
            return 0
        exists = self._row(record.kind, record.name) is not None
        return (record.value is not None) - exists

    def _row(self, kind: str, name: str) -> _Row | None:
        data = self._store.get(_record_key(kind, name))
        return None if data is None else _rows.decode(data)

    def _key(self, key: str) -> _Row | None:
        data = self._store.get(_KEY + key.encode())
        return None if data is None else _rows.decode(data)

    def _left(self, number: int) -> _Left:
        data = self._store.get(_LEFT + str(number).encode())
        return _Left() if data is None else _lefts.decode(data)

    def _node(self, number: int) -> Node | None:
        row = self._row(NODE, str(number))
        return None if row is None else node_of(row.value)


def _record_key(kind: str, name: str) -> bytes:
    return b"%c%b\0%b" % (_RECORD, kind.encode(), name.encode())


def _refuse(detail: str) -> Refused:
    return Refused(Refusal.NOT_AUTHORIZED, detail)


def _too_many(most: int) -> Refused:
    return Refused(
        Refusal.QUOTA_EXCEEDED,
        f"the cluster keeps {most} records at most (admin.max_records): delete some",
    )
