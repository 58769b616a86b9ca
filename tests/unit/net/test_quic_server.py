import gc
import random
import weakref

import pytest
from aioquic.quic.events import (
    ConnectionTerminated,
    StreamDataReceived,
)
from aioquic.quic.packet import QuicErrorCode

from tests.unit.net.quic_network import WINDOW, Network, closed, echoed, greet, lost, met, was_reset


def test_bytes_go_both_ways_on_the_control_stream() -> None:
    network = Network()
    network.hall.echo = True
    client = greet(network)
    assert network.run(lambda: client.received() == b"hello")
    stream = network.hall.takers[0].stream
    assert (stream.facts.address, stream.facts.listener) == ("10.0.0.2", "quic")
    assert stream.control is None
    assert network.server.connections == 1
    assert not network.hall.errors


@pytest.mark.parametrize("seed", range(4))
def test_loss_and_disorder_and_repeats_change_nothing(seed: int) -> None:
    network = Network()
    network.hall.echo = True
    chance = random.Random(seed)

    def mangle(_: bytes) -> list[float]:
        if chance.random() < 0.1:
            return []
        copies = 2 if chance.random() < 0.1 else 1
        return [chance.random() * 0.03 for _ in range(copies)]

    network.mangle = mangle
    client = network.client()
    assert network.connected(client)
    data = chance.randbytes(300_000)
    client.quic.send_stream_data(0, data)
    assert network.run(lambda: len(client.received()) >= len(data), 600.0)
    assert client.received() == data
    assert network.hall.takers[0].taken == data
    assert not network.hall.errors


def test_a_paused_endpoint_is_sent_a_window_and_no_more() -> None:
    network = Network()
    client = greet(network, b"a")
    taker = network.hall.takers[0]
    taker.paused = True
    client.quic.send_stream_data(0, b"x" * (4 * WINDOW))
    network.run(lambda: False, 10.0)
    assert bytes(taker.taken) == b"a"
    held = len(taker.stream._held)
    assert WINDOW // 2 <= held <= 2 * WINDOW
    taker.paused = False
    taker.stream.resume()
    assert network.run(lambda: len(taker.taken) == 4 * WINDOW + 1)


def test_credit_follows_what_is_taken_for_longer_than_the_connection_window() -> None:
    network = Network()
    client = greet(network)
    client.quic.send_stream_data(0, b"x" * (40 * WINDOW))
    assert network.run(lambda: sum(len(taker.taken) for taker in network.hall.takers) > 39 * WINDOW)


def test_what_is_not_acknowledged_is_backlog_and_its_end_is_told() -> None:
    network = Network()
    client = greet(network)
    taker = network.hall.takers[0]
    taker.stream.write(b"y" * (WINDOW // 2))
    assert taker.stream.backlog == 0
    assert not taker.drains
    assert network.run(lambda: taker.drains == 1)
    taker.stream.write(b"y" * (3 * WINDOW))
    assert taker.stream.backlog >= 3 * WINDOW
    assert network.run(lambda: len(client.received()) == 3 * WINDOW + WINDOW // 2)
    assert network.run(lambda: taker.drains == 2)
    assert taker.stream.backlog == 0


def test_what_was_written_arrives_before_the_connection_is_closed() -> None:
    network = Network()
    client = greet(network)
    taker = network.hall.takers[0]
    lost = iter([True, True, True])
    network.mangle = lambda _: [] if next(lost, False) else [0.0]
    taker.stream.write(b"goodbye")
    taker.stream.close()
    assert closed(network, client)
    assert client.received() == b"goodbye"
    assert client.seen(ConnectionTerminated)[0].error_code == 0
    assert taker.losses == 1
    assert network.run(lambda: network.server.connections == 0)


def test_a_peer_that_takes_nothing_any_more_does_not_hold_up_the_end() -> None:
    network = Network()
    greet(network)
    taker = network.hall.takers[0]
    network.mangle = lambda _: []
    taker.stream.write(b"goodbye")
    taker.stream.close()
    assert network.run(lambda: taker.losses == 1, 3.0)
    assert network.run(lambda: network.server.connections == 0, 10.0)


def test_aborting_the_control_stream_ends_the_connection() -> None:
    network = Network()
    client = greet(network)
    network.hall.takers[0].stream.abort()
    assert closed(network, client)
    assert network.run(lambda: network.server.connections == 0)


@pytest.mark.parametrize("way", ["end", "reset", "close"])
def test_the_client_ends(way: str) -> None:
    network = Network()
    client = greet(network)
    taker = network.hall.takers[0]
    if way == "end":
        client.quic.send_stream_data(0, b"last", end_stream=True)
    elif way == "reset":
        client.quic.reset_stream(0, 5)
    else:
        client.quic.close()
    assert lost(network, taker)
    assert network.run(lambda: network.server.connections == 0)
    if way == "end":
        assert bytes(taker.taken) == b"hellolast"
    assert not network.hall.errors


def test_a_client_that_vanishes_is_given_up_when_it_was_idle_for_too_long() -> None:
    network = Network(idle_timeout=30.0)
    client = greet(network)
    taker = network.hall.takers[0]
    network.clients.remove(client)
    assert not network.run(lambda: taker.losses, 29.0)
    assert network.run(lambda: taker.losses == 1, 10.0)
    assert network.run(lambda: network.server.connections == 0)


def test_data_streams_know_their_control_stream() -> None:
    network = Network()
    network.hall.echo = True
    client = greet(network)
    for stream_id in (4, 8):
        client.quic.send_stream_data(stream_id, b"data %d" % stream_id)
    assert network.run(lambda: client.received(4) == b"data 4" and client.received(8) == b"data 8")
    control, *others = network.hall.takers
    assert [each.stream.control for each in others] == [control.stream, control.stream]


def test_a_data_stream_that_comes_first_waits_for_the_control_stream() -> None:
    network = Network()
    client = network.client()
    assert network.connected(client)
    client.quic.send_stream_data(0, b"")
    client.quic.send_stream_data(4, b"early")
    network.run(lambda: False, 1.0)
    assert not network.hall.takers
    client.quic.send_stream_data(0, b"first")
    assert network.run(lambda: len(network.hall.takers) == 2)
    assert [each.stream.stream_id for each in network.hall.takers] == [0, 4]
    network.hall.takers[1].stream.resume()
    assert bytes(network.hall.takers[1].taken) == b"early"


@pytest.mark.parametrize("way", ["end", "reset"])
def test_a_data_stream_ends_alone_and_makes_room_for_another(way: str) -> None:
    network = Network(streams=2)
    client = greet(network)
    for number in range(1, 12):
        stream_id = client.quic.get_next_available_stream_id()
        client.quic.send_stream_data(stream_id, b"x" * 1_000)
        assert met(network, number + 1)
        taker = network.hall.takers[-1]
        if way == "end":
            client.quic.send_stream_data(stream_id, b"", end_stream=True)
        else:
            client.quic.reset_stream(stream_id, 3)
        assert lost(network, taker)
    client.quic.send_stream_data(0, b" again")
    control = network.hall.takers[0]
    assert network.run(lambda: bytes(control.taken) == b"hello again")
    assert not control.losses


def test_a_data_stream_that_we_abort_takes_no_credit_with_it() -> None:
    network = Network()
    client = greet(network)
    for _ in range(12):
        stream_id = client.quic.get_next_available_stream_id()
        before = len(network.hall.takers)
        client.quic.send_stream_data(stream_id, b"x" * WINDOW)
        assert met(network, before + 1)
        taker = network.hall.takers[-1]
        taker.paused = True
        taker.stream.abort()
        assert was_reset(network, client, stream_id)
        client.quic.reset_stream(stream_id, 0)
    client.quic.send_stream_data(0, b"y" * (3 * WINDOW))
    control = network.hall.takers[0]
    assert network.run(lambda: len(control.taken) == 3 * WINDOW + 5)


def test_too_many_streams_and_unidirectional_ones_end_the_connection() -> None:
    for stream_id in (4 * 9, 2):
        network = Network(streams=8)
        client = greet(network)
        client.quic._remote_max_streams_bidi = client.quic._remote_max_streams_uni = 100
        while client.quic.get_next_available_stream_id(stream_id == 2) <= stream_id:
            opened = client.quic.get_next_available_stream_id(stream_id == 2)
            client.quic.send_stream_data(opened, b"x")
        assert closed(network, client)
        ended = client.seen(ConnectionTerminated)[0]
        assert ended.error_code == QuicErrorCode.STREAM_LIMIT_ERROR
        assert network.hall.takers[0].losses == 1


def test_a_client_that_moves_stays_connected() -> None:
    network = Network()
    network.hall.echo = True
    client = greet(network)
    for times in (1, 2):
        client.address = ("10.9.9.9", 6_000 + times)
        client.quic.send_stream_data(0, b" moved")
        assert echoed(network, client, b"hello" + b" moved" * times)
    client.quic.change_connection_id()
    client.address = ("10.9.9.10", 1)
    client.quic.send_stream_data(0, b" once more")
    assert network.run(lambda: client.received().endswith(b"once more"))
    assert network.server.connections == 1


def test_every_connection_id_names_its_worker() -> None:
    network = Network(worker=5, workers=7)
    client = greet(network)
    assert network.run(lambda: len(client.quic._peer_cid_available) >= 3)
    cids = [each.cid for each in client.quic._peer_cid_available] + [client.quic._peer_cid.cid]
    assert {int.from_bytes(cid[:2], "big") % 7 for cid in cids} == {5}
    assert len(set(cids)) == len(cids)


def test_an_error_of_ours_ends_one_connection() -> None:
    network = Network()
    network.hall.echo = True
    first, second = greet(network), greet(network)
    broken = network.hall.takers[0]

    def fail(data: bytes) -> None:
        raise RuntimeError(data.decode())

    broken.feed = fail  # type: ignore[method-assign]
    first.quic.send_stream_data(0, b"boom")
    second.quic.send_stream_data(0, b" fine")
    assert network.run(lambda: second.received() == b"hello fine")
    assert [str(error) for error in network.hall.errors] == ["boom"]
    assert broken.losses == 1
    assert network.server.connections == 1


def test_the_memory_of_a_connection_comes_back_at_once() -> None:
    network = Network()
    gc.disable()
    try:
        client = greet(network)
        (link,) = network.server._open
        engine = weakref.ref(link.engine)
        del link
        stream = network.hall.takers[0].stream
        client.quic.close()
        assert network.run(lambda: network.server.connections == 0)
        network.hall.takers.clear()
        # What is still asked of a stream by whoever has it changes nothing.
        stream.write(b"late")
        stream.resume()
        stream.close()
        stream.abort()
        assert stream.backlog == 0
        assert not network.hall.errors
        del stream
        network.run(lambda: False, 1.0)
        assert engine() is None
    finally:
        gc.enable()


def test_times_that_are_void_do_not_pile_up() -> None:
    network = Network()
    network.hall.echo = True
    # The quiet one's time is the first for a minute: what lies behind it is not looked at.
    _quiet, client = greet(network), greet(network)
    for number in range(300):
        client.quic.send_stream_data(0, b".")
        assert echoed(network, client, b"hello" + b"." * (number + 1))
        client.events = [StreamDataReceived(client.received(), False, 0)]
        network.run(lambda: False, 0.15)
    assert len(network.server._timers) <= 132


def test_keys_are_updated_without_anybody_noticing() -> None:
    network = Network()
    network.hall.echo = True
    client = greet(network)
    network.run(lambda: False, 1.0)
    client.quic.request_key_update()
    client.quic.send_stream_data(0, b" new keys")
    assert network.run(lambda: client.received() == b"hello new keys")
