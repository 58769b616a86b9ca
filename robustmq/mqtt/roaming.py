"""MQTT on several nodes: one core's part in it, beside what it does alone."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from robustmq.broker.api import Broker
from robustmq.errors import Refusal, Refused
from robustmq.message.session_record import SessionRecord
from robustmq.mqtt import bequests
from robustmq.mqtt.adoption import Adoption
from robustmq.mqtt.bequests import Bequests
from robustmq.mqtt.passage import Introduction, Passage
from robustmq.mqtt.registry import Registrar, Registry
from robustmq.mqtt.seeker import Cluster, Seeker
from robustmq.mqtt.session_table import SessionTable
from robustmq.settings.mqtt import MqttRuntime

if TYPE_CHECKING:
    from robustmq.mqtt.connection import Connection

_ISOLATED = Refused(
    Refusal.UNAVAILABLE,
    "this node has lost the cluster, which may have given it up: try another node, or again",
)
_RETURNING = Refused(
    Refusal.UNAVAILABLE, "this node does not know yet which sessions are its own: try again"
)


class Roaming:
    """What a core of a cluster must know and do for sessions that others may have.

    `bring(core, passage, introduction)` relays a client's packets to its session's core, and sets
    the passage's endpoint. Until `restored` nobody is let in.
    """

    def __init__(
        self,
        broker: Broker,
        sessions: SessionTable,
        config: MqttRuntime,
        *,
        cluster: Cluster,
        registry: Registry,
        bring: Callable[[int, Passage, Introduction], None],
    ) -> None:
        self.bring = bring
        self.passages: set[Connection] = set()
        self._broker = broker
        self._sessions = sessions
        self._is_isolated = False
        self._is_restored = False
        takeover = config.takeover
        retry_ms = takeover.retry_ms
        self.registrar = Registrar(
            broker,
            registry,
            cluster.node,
            at_once=takeover.changes_at_once,
            retry_ms=retry_ms,
        )
        self.adoption = Adoption(
            broker,
            sessions,
            self.registrar,
            at_once=takeover.adopt_at_once,
            retry_ms=retry_ms,
            changed=self.look,
        )
        self.seeker = Seeker(
            broker,
            sessions,
            self.registrar,
            cluster,
            is_ready=lambda: self.is_ready,
            retry_ms=retry_ms,
            patience_ms=config.protocol.connect_timeout_ms,
        )
        self.bequests = Bequests(
            broker,
            sessions,
            self.registrar,
            cluster,
            is_ready=lambda: self.is_ready,
            retry_ms=retry_ms,
            at_once=takeover.bequests_at_once,
            page_bytes=takeover.bequest_page_bytes,
        )
        self.registrar.quieted = self.look
        sessions.join(self.registrar, self.bequests.leave)

    @property
    def is_ready(self) -> bool:
        """Whether it is known here which sessions this core has."""
        return self._is_restored and not self._is_isolated and self.adoption.is_settled

    @property
    def refusal(self) -> Refused | None:
        """Why no client may come in now."""
        if self._is_isolated:
            return _ISOLATED
        return None if self._is_restored and self.adoption.knows_own else _RETURNING

    def look(self) -> None:
        """Something has changed that somebody may wait for, such as the cluster's version."""
        is_known = self._is_restored and not self._is_isolated
        self._broker.orphans.settled(is_known and self.adoption.is_complete)
        self.seeker.look()

    def run(self) -> None:
        """Go on with what waits for a change; once a turn, before what it puts is committed."""
        self.seeker.run()
        self.bequests.run()

    def flush(self) -> None:
        """Propose what the turn has changed, also what its commit has led to."""
        self.registrar.flush()

    @property
    def busy(self) -> bool:
        """Whether there is work for another turn although nothing new has arrived."""
        return self.seeker.busy or self.registrar.busy or self.bequests.busy

    def receive(self, core: int, frame: bytes) -> None:
        """Take a frame of another core (kinds from `seeker.FIRST_KIND` on)."""
        if frame[0] >= bequests.FIRST_KIND:
            self.bequests.receive(core, frame)
        else:
            self.seeker.receive(core, frame)

    def replaced(self, core: int) -> None:
        """A core of another node has a new life, or is not there any more."""
        self.seeker.replaced(core)
        self.bequests.replaced(core)

    # ------------------------------------------------------------------ nodes come and go

    def restored(self, rows: Iterable[SessionRecord]) -> None:
        """The node is in the cluster: `rows` are all sessions that are its own, of this core.

        To be said when the broker has started and before `SessionTable.resume`, and again after
        `rejoined`.
        """
        for session in self.adoption.restored(rows):
            self._sessions.give_up(session)
        self._is_restored = True
        self.look()

    def fenced(self, node: int) -> None:
        """Another node was given up by the cluster; `adopt` and `settled` follow, or `returned`.

        Until then nobody is let in whose session it may have had. To be said again when the live
        nodes change while it is gone: it is shared out anew.
        """
        self.adoption.fenced(node)
        self.look()
        self.seeker.begin_again()

    def adopt(self, node: int, rows: Iterable[SessionRecord]) -> None:
        """Take over these sessions of a node that was fenced."""
        self.adoption.adopt(node, rows)

    def settled(self, node: int) -> None:
        """All sessions of a node that was fenced, of this core's share, have other owners now."""
        self.adoption.settled(node)

    def returned(self, node: int) -> None:
        """A node that was fenced is back."""
        self.adoption.returned(node)

    def isolated(self) -> None:
        """The node has no leader: what it has may be others' by now, so nobody may use it."""
        self._is_isolated = True
        self._is_restored = False
        self.adoption.isolated()
        self.look()
        self.seeker.refuse_all(_ISOLATED)

    def rejoined(self, was_fenced: bool) -> None:
        """The node is in the cluster again, which may have given it up; `restored` follows."""
        if was_fenced:
            self.registrar.was_fenced()
        self._is_isolated = False
