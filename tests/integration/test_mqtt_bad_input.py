"""Clients that send what they must not: the right reason, a closed connection, a worker alive."""

import contextlib
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from robustmq.mqtt import codec
from robustmq.mqtt.packets import (
    V5,
    V31,
    V311,
    Connack,
    Connect,
    Disconnect,
    Pingresp,
    Properties,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Will,
)
from robustmq.mqtt.reasons import Reason
from tests.integration.homes import name_on, topic_on
from tests.integration.supervised import PATIENCE_SECONDS, Node, until
from tests.integration.wire_client import VERSIONS, Client, Wire, serve

MALFORMED = Reason.MALFORMED_PACKET
ERROR = Reason.PROTOCOL_ERROR
WRONG_NAME = Reason.TOPIC_NAME_INVALID
WRONG_FILTER = Reason.TOPIC_FILTER_INVALID


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    yield from serve(
        tmp_path_factory.mktemp("bad") / "data",
        "mqtt_runtime.protocol.connect_timeout_ms=1000",
        "mqtt_runtime.protocol.linger_timeout_ms=500",
        "mqtt_runtime.protocol.max_connect_size=70000",
        "mqtt_runtime.protocol.max_packet_size=100000",
    )


def text(hexadecimal: str) -> bytes:
    return bytes.fromhex(hexadecimal)


BAD_PACKETS: dict[str, tuple[str, Reason]] = {
    "type 0": ("00 00", MALFORMED),
    "auth": ("f0 00", ERROR),
    "connack": ("20 03 00 00 00", ERROR),
    "suback": ("90 04 0001 00 00", ERROR),
    "pingresp": ("d0 00", ERROR),
    "second connect": ("10 0d 0004 4d515454 05 02 0000 00 0000", ERROR),
    "remaining length of five bytes": ("30 ff ff ff ff 01", MALFORMED),
    "publish flags of qos 3": ("36 06 0001 61 0001 00", MALFORMED),
    "publish qos 0 with dup": ("38 04 0001 61 00", MALFORMED),
    "publish with id 0": ("32 06 0001 61 0000 00", MALFORMED),
    "publish qos 2 with id 0": ("34 06 0001 61 0000 00", MALFORMED),
    "publish retained with id 0": ("33 06 0001 61 0000 00", MALFORMED),
    "publish without a topic": ("30 03 0000 00", ERROR),
    "publish to +": ("30 04 0001 2b 00", WRONG_NAME),
    "publish to a/#": ("32 08 0003 612f23 0001 00", WRONG_NAME),
    "publish retained to +": ("31 04 0001 2b 00", WRONG_NAME),
    "topic is not UTF-8": ("30 04 0001 ff 00", MALFORMED),
    "topic is a surrogate": ("32 08 0003 eda080 0001 00", MALFORMED),
    "topic is overlong UTF-8": ("34 07 0002 c0af 0001 00", MALFORMED),
    "topic contains U+0000": ("30 05 0002 6100 00", MALFORMED),
    "topic longer than its packet": ("30 04 0009 61 00", MALFORMED),
    "publish of one byte": ("30 01 00", MALFORMED),
    "publish of nothing": ("30 00", MALFORMED),
    "publish qos 1 without an id": ("32 03 0001 61", MALFORMED),
    "publish qos 1 without properties": ("32 05 0001 61 0001", MALFORMED),
    "property twice": ("30 08 0001 61 04 0100 0101", ERROR),
    "alias twice": ("30 0a 0001 61 06 230001 230001", ERROR),
    "property cut": ("30 06 0001 61 02 0200", MALFORMED),
    "property block longer than its packet": ("30 05 0001 61 09 01", MALFORMED),
    "property that is unknown": ("30 06 0001 61 02 7f00", MALFORMED),
    "property of another packet": ("30 09 0001 61 05 1100000001", MALFORMED),
    "payload format 2": ("30 06 0001 61 02 0102", ERROR),
    "alias 0": ("30 07 0001 61 03 230000", Reason.TOPIC_ALIAS_INVALID),
    "subscription identifier of a client": ("30 06 0001 61 02 0b01", ERROR),
    "response topic with a wildcard": ("30 08 0001 61 04 08 0001 23", WRONG_NAME),
    "user property is not UTF-8": ("30 0b 0001 61 07 26 0001 61 0001 ff", MALFORMED),
    "subscribe with flags 0": ("80 07 0001 00 0001 61 00", MALFORMED),
    "subscribe with id 0": ("82 07 0000 00 0001 61 00", MALFORMED),
    "subscribe to nothing": ("82 03 0001 00", ERROR),
    "subscribe with qos 3": ("82 07 0001 00 0001 61 03", ERROR),
    "subscribe with reserved bits": ("82 07 0001 00 0001 61 40", MALFORMED),
    "subscribe with retain handling 3": ("82 07 0001 00 0001 61 30", ERROR),
    "subscribe to a#": ("82 08 0001 00 0002 6123 00", WRONG_FILTER),
    "subscribe to an empty filter": ("82 06 0001 00 0000 00", WRONG_FILTER),
    "filter is not UTF-8": ("82 07 0001 00 0001 ff 00", MALFORMED),
    "filter without options": ("82 06 0001 00 0001 61", MALFORMED),
    "group with no name": ("82 0f 0001 00 0009 2473686172652f2f61 00", WRONG_FILTER),
    "group with no local": ("82 10 0001 00 000a 2473686172652f672f61 04", ERROR),
    "subscription identifier 0": ("82 09 0001 02 0b00 0001 61 00", ERROR),
    "unsubscribe from nothing": ("a2 03 0001 00", ERROR),
    "unsubscribe with flags 0": ("a0 06 0001 00 0001 61", MALFORMED),
    "puback with id 0": ("40 02 0000", MALFORMED),
    "puback cut": ("40 01 00", MALFORMED),
    "puback with flags": ("41 02 0001", MALFORMED),
    "puback with an unknown reason": ("40 03 0001 33", ERROR),
    "pubrel with flags 0": ("60 02 0001", MALFORMED),
    "pubrec too long": ("50 06 0001 00 00 0000", MALFORMED),
    "pingreq with a body": ("c0 01 00", MALFORMED),
    "disconnect with flags": ("e1 00", MALFORMED),
    "disconnect with a reason of the server": ("e0 01 8e", Reason(0)),
    "disconnect with an unknown reason": ("e0 01 33", ERROR),
}


@pytest.mark.parametrize("name", BAD_PACKETS)
def test_a_bad_packet_ends_the_connection_with_its_reason(node: Node, name: str) -> None:
    packet, reason = BAD_PACKETS[name]
    with Client(node, name_on(0, "bad")) as client:
        client.send_bytes(text(packet) + b"\xc0\x00")
        ending = client.ending()
        assert ending == ([Disconnect(reason)] if reason else [])


OLD_BAD_PACKETS = (
    "00 00", "f0 00", "20 02 00 00", "30 ff ff ff ff 01", "36 05 0001 61 0001",
    "32 05 0001 61 0000", "30 02 0000", "30 03 0001 2b", "30 03 0001 ff",
    "32 05 0001 ff 0001", "30 03 0009 61", "30 00",
    "82 06 0001 0001 61 03", "82 06 0001 0001 61 04", "80 06 0001 0001 61 00", "82 02 0001",
    "82 07 0001 0002 6123 00", "60 02 0001", "40 03 0001 00", "c0 01 00", "e0 01 00",
    "10 0c 0004 4d515454 04 02 0000 0000",
)  # fmt: skip


@pytest.mark.parametrize("version", [V31, V311])
@pytest.mark.parametrize("packet", OLD_BAD_PACKETS)
def test_mqtt_3_is_only_closed(node: Node, version: int, packet: str) -> None:
    if version == V31 and packet.startswith("80"):
        packet = "84" + packet[2:]
    with Client(node, name_on(1, "bad"), version) as client:
        client.send_bytes(text(packet) + b"\xc0\x00")
        assert client.ending() == []


NAME = "0004 4d515454"
BAD_CONNECTS: dict[str, tuple[str, list[Connack]]] = {
    "reserved flag, 5": (f"10 0d {NAME} 05 03 0000 00 0000", [Connack(MALFORMED)]),
    "reserved flag, 3.1.1": (f"10 0c {NAME} 04 03 0000 0000", []),
    "fixed header flags": (f"11 0d {NAME} 05 02 0000 00 0000", [Connack(MALFORMED)]),
    "will qos 3": (f"10 13 {NAME} 05 1e 0000 00 0000 00 0001 61 0000", [Connack(MALFORMED)]),
    "will qos without will": (f"10 0d {NAME} 05 0a 0000 00 0000", [Connack(MALFORMED)]),
    "will topic with a wildcard": (
        f"10 13 {NAME} 05 06 0000 00 0000 00 0001 23 0000",
        [Connack(WRONG_NAME)],
    ),
    "client id is not UTF-8": (f"10 0e {NAME} 05 02 0000 00 0001 ff", [Connack(MALFORMED)]),
    "client id with U+0000": (f"10 0e {NAME} 05 02 0000 00 0001 00", [Connack(MALFORMED)]),
    "ends too early": (f"10 0b {NAME} 05 02 0000 00", [Connack(MALFORMED)]),
    "goes on too long": (f"10 0e {NAME} 05 02 0000 00 0000 00", [Connack(MALFORMED)]),
    "property twice": (
        f"10 17 {NAME} 05 02 0000 0a 1100000001 1100000001 0000",
        [Connack(ERROR)],
    ),
    "receive maximum 0": (f"10 10 {NAME} 05 02 0000 03 210000 0000", [Connack(ERROR)]),
    "maximum packet size 0": (f"10 12 {NAME} 05 02 0000 05 2700000000 0000", [Connack(ERROR)]),
    "authentication data alone": (f"10 10 {NAME} 05 02 0000 03 160000 0000", [Connack(ERROR)]),
    "version 6": (
        f"10 0d {NAME} 06 02 0000 00 0000",
        [Connack(Reason.UNSUPPORTED_PROTOCOL_VERSION)],
    ),
    "another protocol": ("10 0d 0004 4d515458 05 02 0000 00 0000", []),
    "no protocol": ("10 00", []),
    "publish first": ("30 04 0001 61 00", []),
    "pingreq first": ("c0 00", []),
    "auth first": ("f0 00", []),
    "http": ("474554202f20485454502f312e310d0a0d0a", []),
    "tls": ("160301020001", []),
    "zeros": ("00" * 100, []),
    "remaining length of five bytes": ("10 ff ff ff ff 01", []),
    "larger than allowed": ("10 ff ff 7f 0004 4d515454 05", []),
}


@pytest.mark.parametrize("name", BAD_CONNECTS)
def test_a_bad_beginning(node: Node, name: str) -> None:
    packet, answer = BAD_CONNECTS[name]
    with Wire(node) as wire:
        wire.send_bytes(text(packet))
        assert wire.ending() == answer


def test_what_is_no_connect_is_not_waited_for(tmp_path: Path) -> None:
    """The timeout for CONNECT is long here; nothing that comes could make it one."""
    for node in serve(tmp_path / "data", "mqtt_runtime.protocol.connect_timeout_ms=600000"):
        for beginning in (
            b"GET / HTTP/1.1",
            b"\x30\x7f",
            b"\x10\xff\xff\x7f",
            b"\x10\x80\x80\x80\x80",
        ):
            with Wire(node) as wire:
                wire.send_bytes(beginning)
                assert wire.ending() == []


def test_version_2_is_told_the_code_of_mqtt_3(node: Node) -> None:
    with Wire(node, V311) as wire:
        wire.send_bytes(text(f"10 0c {NAME} 02 02 0000 0000"))
        assert wire.ending() == [Connack(Reason.UNSUPPORTED_PROTOCOL_VERSION)]


def test_a_password_without_a_user_name(node: Node) -> None:
    with Wire(node, V311) as wire:
        wire.send_bytes(text(f"10 0f {NAME} 04 42 0000 0000 0001 61"))
        assert wire.ending() == []
    with Wire(node) as wire:
        wire.send(Connect("", password=b"x"))
        assert wire.expect(Connack).reason == 0


def test_a_packet_that_is_too_large_is_refused_by_its_header(node: Node) -> None:
    for first_byte in (b"\x30", b"\x32", b"\x34", b"\x82", b"\xc0", b"\x40"):
        with Client(node, name_on(1, "large")) as client:
            client.send_bytes(first_byte + b"\xff\xff\xff\x7f")
            assert client.ending() == [Disconnect(Reason.PACKET_TOO_LARGE)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("core", [0, 1])
def test_one_byte_at_a_time(node: Node, version: int, core: int) -> None:
    topic = topic_on(1, "slow/{}")
    will = Will(b"w", b"x" * 20)
    # The timeout for CONNECT is short here: a loaded machine may need a second attempt.
    for attempt in range(10):
        with Wire(node, version) as wire:
            connect = Connect(name_on(core, "slow"), version, will=will)
            try:
                for byte in codec.encode(connect, version):
                    wire.send_bytes(bytes((byte,)))
                assert wire.expect(Connack).reason == 0
            except (ConnectionError, AssertionError):
                assert attempt < 9
                continue
            packets = (
                Subscribe(1, [Subscription(topic, 1)]),
                Publish(topic.encode(), b"one", 1, packet_id=2),
                Publish(topic.encode(), b"two", 1, True, packet_id=3),
            )
            for packet in packets:
                for byte in codec.encode(packet, version):
                    wire.send_bytes(bytes((byte,)))
            # A PUBLISH may come before the SUBACK of its subscription (MQTT5 3.8.4).
            heard = [wire.receive() for _ in range(5)]
            assert [p.reasons for p in heard if isinstance(p, Suback)] == [[1]]
            assert [p.payload for p in heard if isinstance(p, Publish)] == [b"one", b"two"]
            assert [p.packet_id for p in heard if isinstance(p, Puback)] == [2, 3]
            return


def test_packets_cut_anywhere_are_the_same_packets(node: Node) -> None:
    choice = random.Random(7)
    topic = topic_on(1, "cut/{}")
    with Client(node, name_on(0, "p")) as says, Client(node, name_on(0, "s")) as hears:
        hears.subscribe(topic, 1)
        sizes = [choice.choice((0, 1, 100, 5_000, 70_000)) for _ in range(200)]
        stream = b"".join(
            codec.encode(Publish(topic.encode(), bytes(size), 1, packet_id=i + 1), V5)
            for i, size in enumerate(sizes)
        )
        answers, heard = [], []
        while stream:
            cut = choice.choice((1, 2, 7, 1_000, 50_000, 400_000))
            says.send_bytes(stream[:cut])
            stream = stream[cut:]
            if cut > 1_000:
                heard += hears.heard()
        answers = [says.expect(Puback).packet_id for _ in sizes]
        assert answers == list(range(1, 201))
        heard += hears.messages(200 - len(heard))
        assert [len(message.payload) for message in heard] == sizes


def test_a_connection_that_says_nothing_is_closed(node: Node) -> None:
    begin = time.monotonic()
    beginnings = (b"", b"\x10", text(f"10 20 {NAME} 05 02 0000 00 0010 6161"))
    wires = [Wire(node) for _ in beginnings]
    known = Connect(name_on(1, "known"), properties=Properties(), will=Will(b"w", bytes(9)))
    late = Wire(node)
    late.send_bytes(codec.encode(known, V5)[:-1])
    for wire, beginning in zip(wires, beginnings, strict=True):
        wire.send_bytes(beginning)
    for wire in (*wires, late):
        assert wire.ending() == []
        wire.close()
    assert time.monotonic() - begin > 0.9


def test_a_half_open_connection(node: Node) -> None:
    """The peer has ended its side: nobody will hear us, and its will is due."""
    topic = topic_on(0, "half/{}")
    with Client(node, name_on(0, "s")) as hears:
        hears.subscribe(topic, 1)
        will = Will(topic.encode(), b"gone", 1)
        with Client(node, name_on(1, "half"), will=will) as half:
            half.send_bytes(b"\x30")
            half.socket.shutdown(socket.SHUT_WR)
            assert hears.payloads(1) == [b"gone"]
            assert half.ending() == []
        with Wire(node) as wire:
            wire.send_bytes(b"\x10\x20")
            wire.socket.shutdown(socket.SHUT_WR)
            assert wire.ending() == []


def test_a_client_that_never_reads_its_end_is_let_go(node: Node) -> None:
    connections = [f'mqtt_connections{{core="{core}"}}' for core in (0, 1)]
    workers = processes(node)
    before = sum(worker.num_fds() for worker in workers)
    stubborn = [Client(node, name_on(i % 2, "stubborn")) for i in range(50)]
    for client in stubborn:
        client.send_bytes(b"\x00\x00")

    def released() -> bool:
        descriptors = sum(worker.num_fds() for worker in workers)
        return descriptors <= before and sum(map(node.sample, connections)) == 0

    until(released, "the descriptors of clients that stay are closed")
    for client in stubborn:
        client.close()


def processes(node: Node) -> list[psutil.Process]:
    children = node.children().items()
    return [psutil.Process(pid) for name, pid in children if name.startswith("worker")]


def garbage(choice: random.Random) -> bytes:
    """A random beginning: noise, or a CONNECT that is damaged, cut or followed by noise."""
    connect = bytearray(
        codec.encode(
            Connect(f"g{choice.random()}", will=Will(b"w", b"x"), properties=Properties()), V5
        )
    )
    noise = choice.randbytes(choice.randrange(1, 60))
    match choice.randrange(4):
        case 0:
            return noise
        case 1:
            connect[choice.randrange(len(connect))] ^= 1 << choice.randrange(8)
            return bytes(connect)
        case 2:
            return bytes(connect[: choice.randrange(1, len(connect))])
        case _:
            return bytes(connect) + noise


@pytest.mark.slow
def test_twenty_thousand_bad_connections_leave_nothing_behind(node: Node) -> None:
    choice = random.Random(11)
    workers = processes(node)

    def storm(count: int) -> None:
        for _ in range(count // 100):
            sockets = []
            for _ in range(100):
                one = socket.create_connection(node.address(), timeout=PATIENCE_SECONDS)
                with contextlib.suppress(ConnectionError):
                    one.sendall(garbage(choice))
                sockets.append(one)
            for one in sockets:
                if choice.randrange(2):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                one.close()

    def settled() -> bool:
        series = ("mqtt_connections", "mqtt_sessions")
        return not any(
            node.sample(f'{name}{{core="{core}"}}') for name in series for core in (0, 1)
        )

    def total() -> int:
        return sum(worker.num_fds() for worker in workers)

    # The heap finds its size first; then a leak of one connection's kilobytes would be seen.
    storm(10_000)
    until(settled, "the first storm is over")
    before = [(worker.memory_info().rss, worker.num_fds()) for worker in workers]
    storm(20_000)
    until(settled, "the storm is over")
    until(lambda: total() <= sum(one[1] for one in before), "descriptors are closed")
    for worker, (memory, _) in zip(workers, before, strict=True):
        assert worker.memory_info().rss - memory < 16 * 1024 * 1024
    with Client(node, name_on(0, "after")) as client:
        client.send_bytes(b"\xc0\x00")
        assert client.expect(Pingresp) == Pingresp()
