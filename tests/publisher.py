"""A connection that records what its intake tells it, for the tests of the input path."""

from tests.datapath import Answer, Kernel, Side, decode


class Publisher:
    """An intake whose connection routes every topic to one builder and takes what is left."""

    def __init__(
        self, kind: str | Side, version: int = 4, max_packet: int = 10_000, max_bytes: int = 1 << 20
    ) -> None:
        self.side = kind if isinstance(kind, Side) else Side(kind)
        self.turn = self.side.turn()
        self.outbox = self.side.Outbox(self.turn)
        self.intake = self.side.Intake(self.turn, self.outbox, self, max_packet)
        self.intake.open = True
        self.intake.version = version
        self.version = version
        self.builder = self.side.BatchBuilder(self.turn, None, max_bytes, self.flush)
        self.batches: list[tuple[bytes, Kernel]] = []
        self.packets: list[tuple[int, bytes]] = []
        self.routes: list[bytes] = []
        self.malformed: list[int] = []
        self.handles: list[Kernel] = []
        self.slow: set[bytes] = set()
        self.reason = 0x10

    def on_packet(self, first_byte: int, body: bytes) -> None:
        self.packets.append((first_byte, body))

    def on_route(self, topic: bytes) -> Kernel:
        self.routes.append(topic)
        if topic in self.slow:
            return None
        self.handles.append(self.side.Handle(topic, self.builder))
        return self.handles[-1]

    def on_malformed(self, reason: int, detail: str) -> None:
        assert detail
        self.malformed.append(reason)

    def settled(self, kind: int, packet_id: int, code: int, matched: bool) -> int:
        return self.reason + code if not matched or code else 0

    def flush(self, builder: Kernel) -> None:
        self.batches.append(builder.take())

    def records(self) -> list[tuple[bytes, bytes, int]]:
        """Return all records so far as (topic, payload, attributes)."""
        if self.builder.count:
            self.flush(self.builder)
        return [
            (record[3], record[4], record[0])
            for batch, _ in self.batches
            for record in self.side.records(batch)
        ]

    def settle(self, code: int = 0) -> None:
        """Settle every batch so far, in order."""
        self.records()
        for _, acks in self.batches:
            acks.settle(code, [])

    def answers(self) -> list[Answer]:
        """Return the answers that wait in the outbox."""
        return [
            answer
            for answer in decode(self.outbox.take(), self.version)
            if isinstance(answer, Answer)
        ]

    def cell(self, cell: int) -> int:
        """Return a counter."""
        return int(self.turn.row[cell])
