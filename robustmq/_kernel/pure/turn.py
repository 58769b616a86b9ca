"""What everything within one worker's turn shares: readable twin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustmq.metrics import CELLS

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from robustmq._kernel.pure.batch import BatchBuilder
    from robustmq._kernel.pure.intake import Intake
    from robustmq._kernel.pure.outbox import Outbox
    from robustmq._kernel.pure.window import Window


class Turn:
    """The time, the counters, and what the end of the turn must flush.

    `row` is the core's row of u64 counters (at least `metrics.CELLS` of them, ValueError
    otherwise). `now_ms` is the wall clock in milliseconds, set by whoever drives the turn.
    `outboxes` and `builders` are those that took something since they were flushed; `resumes`
    are the intakes that stopped and can be resumed. `sequence` numbers the QoS 1 and 2
    messages that this core has encoded; packet identifiers come from it.

    Of stored messages: `hungry` are the windows that want to be fed from their inbox (each
    once until `Window.fed`), `acknowledged` those that have done with a message (each once
    until `Window.noted`), `exact` the `(window, position, packet_id)` of the QoS 2 messages
    that went out for the first time. Whoever handles these lists empties them.
    """

    __slots__ = (
        "acknowledged", "builders", "exact", "hungry", "now_ms", "outboxes", "resumes", "row",
        "sequence",
    )  # fmt: skip

    def __init__(self, row: Buffer) -> None:
        view = memoryview(row)
        if view.itemsize != 8 or view.format not in {"Q", "L"} or len(view) < CELLS:
            raise ValueError(f"a row of counters has at least {CELLS} cells of u64")
        self.row: memoryview = view
        self.now_ms = 0
        self.outboxes: list[Outbox] = []
        self.builders: list[BatchBuilder] = []
        self.resumes: list[Intake] = []
        self.hungry: list[Window] = []
        self.acknowledged: list[Window] = []
        self.exact: list[tuple[Window, int, int]] = []
        self.sequence = 0


class AckTarget:
    """Whoever is told by ticket that a record was appended."""

    __slots__ = ()

    def settle(self, ticket: int, code: int, matched: bool) -> None:
        """Learn that `ticket` is decided: `code` is 0 or a Refusal, `matched` if anybody wants it.

        Raises NotImplementedError when the subclass does not say how it settles.
        """
        raise NotImplementedError("an AckTarget must say how it settles")
