"""Whatever clients have done: the rows give the sessions back as they were, and hold no more."""

from hypothesis import given
from hypothesis import strategies as st

from robustmq.errors import Refusal
from robustmq.mqtt import codec
from robustmq.mqtt.packets import (
    V5,
    V311,
    Connect,
    Disconnect,
    Packet,
    Properties,
    Publish,
    Pubrel,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)
from robustmq.mqtt.session import NEVER, Session
from tests.unit.mqtt.scripted import Peer, Scene

CLIENTS = ("a", "ç")
FILTERS = ("t", "t/#", "$share/g/t", "ä")
EXPIRIES = (1_000, 5, 0, NEVER)

wills = st.one_of(
    st.none(),
    st.builds(
        Will,
        st.just(b"w"),
        st.binary(max_size=3),
        st.integers(0, 2),
        st.booleans(),
        st.one_of(
            st.none(), st.builds(Properties, will_delay_interval=st.sampled_from([0, 3, 2_000]))
        ),
    ),
)


def as_version(packet: Connect) -> Connect:
    """MQTT 3 has no properties."""
    if packet.version < V5:
        packet.properties = None
        if packet.will is not None:
            packet.will.properties = None
    return packet


connects = st.builds(
    Connect,
    st.sampled_from(CLIENTS),
    st.sampled_from([V5, V5, V311]),
    st.sampled_from([False, False, True]),
    username=st.sampled_from([None, "ü"]),
    will=wills,
    properties=st.builds(Properties, session_expiry_interval=st.sampled_from(EXPIRIES)),
).map(as_version)

subscriptions = st.builds(Subscription, st.sampled_from(FILTERS), st.integers(0, 2))
packet_ids = st.integers(1, 2)
packets = st.one_of(
    st.builds(Subscribe, st.just(1), st.lists(subscriptions, min_size=1, max_size=3)),
    st.builds(Unsubscribe, st.just(2), st.lists(st.sampled_from(FILTERS), min_size=1, max_size=2)),
    st.builds(lambda packet_id: Publish(b"x", b"", 2, packet_id=packet_id), packet_ids),
    st.builds(Pubrel, packet_ids),
)
named = st.tuples(st.sampled_from(CLIENTS), packets)
turns = st.just(("turn", 0))
steps = st.one_of(
    connects,
    named,
    named,
    named,
    named,
    turns,
    turns,
    st.tuples(st.sampled_from(CLIENTS), st.one_of(st.just("lost"), st.builds(Disconnect))),
    st.sampled_from([0, int(Refusal.BUSY)]).map(lambda code: ("answer", code)),
    st.sampled_from([100, 4_000, 1_100_000]).map(lambda ms: ("time", ms)),
)
Step = Connect | tuple[str, Packet | str | int]


class History:
    """What has happened on a core; a step that makes no sense is none."""

    def __init__(self) -> None:
        self.scene = Scene()
        self.peers: dict[str, Peer] = {}

    def take(self, step: Step) -> None:
        """One thing happens."""
        if isinstance(step, Connect):
            peer = Peer(self.scene, step.version)
            peer.connection.intake.feed(codec.encode(step, peer.version))
            self.peers[step.client_id] = peer
            return
        what, detail = step
        if what == "answer":
            self._answer(detail)
        elif what == "time" and isinstance(detail, int):
            self.scene.broker.end_turn()
            self.scene.broker.turn.now_ms += detail
            self.scene.broker.timers.run(self.scene.broker.turn.now_ms)
        elif what == "turn":
            self.scene.broker.end_turn()
        elif what in self.peers:
            self._by_client(self.peers[what], detail)

    def _answer(self, code: object) -> None:
        asked = self.scene.broker.published
        if asked and asked[0].reply is not None:
            self.scene.broker.answer(int(code == Refusal.BUSY) and Refusal.BUSY)
        elif asked:
            asked.pop(0)

    def _by_client(self, peer: Peer, detail: Packet | str | int) -> None:
        if detail == "lost":
            peer.connection.lost()
        elif not isinstance(detail, str | int):
            peer.connection.intake.feed(codec.encode(detail, peer.version))

    def position(self) -> None:
        """Positions go on."""
        self.scene.broker.position += 1


def picture(session: Session, now_ms: int) -> tuple[object, ...]:
    """All that is to come back; what is connected was connected until the restart."""
    durable = session.is_durable
    return (
        session.window.key,
        session.expiry,
        session.version,
        session.ended_ms or now_ms,
        session.principal.username,
        session.will,
        {each.written: each for each in session.subscriptions} if durable else {},
        set(session.received) if durable else set(),
    )


def pictures(scene: Scene) -> dict[str, tuple[object, ...]]:
    now_ms = scene.broker.turn.now_ms
    return {
        client_id: picture(session, now_ms)
        for client_id, session in scene.mqtt.sessions._sessions.items()
        if session.stored
    }


def restored(scene: Scene) -> Scene:
    again = Scene(table=scene.broker.table.crash())
    again.broker.turn.now_ms = scene.broker.turn.now_ms
    again.mqtt.sessions.restore(lambda _: None)
    return again


@given(st.lists(steps, min_size=30, max_size=80))
def test_restored_sessions_are_the_live_ones(history: list[Step]) -> None:
    live = History()
    for step in history:
        live.take(step)
        live.position()
    live.scene.broker.end_turn()
    live.scene.broker.end_turn()
    before = pictures(live.scene)
    again = restored(live.scene)
    assert pictures(again) == before
    durable = [
        session for session in live.scene.mqtt.sessions._sessions.values() if session.is_durable
    ]
    assert again.broker.durable.keys() == {session.window.key for session in durable}
    assert again.broker.durable.keys() == live.scene.broker.durable.keys()
    rows = len(list(again.broker.table.walk(b"s", b"v")))
    inner = sum(each.subscription_count + len(set(each.received)) for each in durable)
    assert rows == len(before) + inner
    third = restored(again)
    assert pictures(third) == before
    # The rest of their lives ends without a trace, but for those who live for ever.
    third.mqtt.sessions.resume()
    for _ in range(20):
        third.broker.end_turn()
        third.broker.turn.now_ms += 10_000_000_000
        third.broker.timers.run(third.broker.turn.now_ms)
    third.broker.end_turn()
    assert all(session.expiry == NEVER for session in third.mqtt.sessions._sessions.values())
    left = list(third.mqtt.sessions.rows.sessions())
    assert len(left) == len(third.mqtt.sessions) == len(third.broker.durable)
