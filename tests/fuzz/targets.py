"""What strangers' bytes must never do: one target per codec, each a law that no input breaks.

A target takes any bytes and returns; whatever else it raises is a finding. Errors that the codec
promises (`ProtocolError`, `Corrupt`, `Broken`, `ScramError`) are caught here.
"""

import contextlib
import random
from collections.abc import Callable, Mapping
from typing import Final

from robustmq.broker import frames
from robustmq.errors import Corrupt, ProtocolError
from robustmq.kafka import codec as kafka_codec
from robustmq.kafka.api_keys import APIS, ApiKey
from robustmq.kafka.messages.connection import (
    ApiVersionsRequest,
    SaslAuthenticateRequest,
    SaslHandshakeRequest,
)
from robustmq.kafka.messages.metadata import MetadataRequest
from robustmq.kafka.schema import Message
from robustmq.message.delay import delay_seconds, is_delayed, read_delay
from robustmq.message.topic import validate_filter, validate_name
from robustmq.mqtt import codec, properties
from robustmq.mqtt.framing import Peek, answer_version, connect_client_id, scan
from robustmq.mqtt.packets import V5, V31, V311, Connect, PacketType
from robustmq.mqtt.wire import Reader
from robustmq.net import proxy
from robustmq.net.layer import Broken
from robustmq.net.websocket import Terms, WebSocket
from robustmq.policy.passwords import verifier, written
from robustmq.policy.scram import ScramError, ScramServer
from robustmq.settings.kafka import KafkaRuntime, KafkaSasl
from robustmq.settings.users import User
from robustmq.storage import header
from tests import kafka_messages
from tests.conformance import raw
from tests.datapath import SIDES, Side
from tests.kafka_front import Desk
from tests.kernels import modules
from tests.publisher import Publisher
from tests.websocket import masked, request

_VERSIONS: Final = (V31, V311, V5, V5)
_WITH_PROPERTIES: Final = (
    *(kind for kind in PacketType if kind not in {PacketType.PINGREQ, PacketType.PINGRESP}),
    properties.WILL,
)
_NOW_MS: Final = 1_700_000_000_000
_PACKET_MAX: Final = 2_000
_MESSAGE_MAX: Final = 500
_PIECES: Final = (1, 2, 3, 7, 64, 1_000)

_KEPT: Final = verifier(written("SCRAM-SHA-256", "pencil", b"a salt", 4_096))

_KAFKA_USERS: Final = (
    User(username="user", password=written("SCRAM-SHA-256", "pencil", b"a salt", 4_096)),
)

Target = Callable[[bytes], None]


def _halves(data: bytes) -> list[bytes]:
    """Cut what follows the first byte into pieces, of sizes that the first byte names."""
    size = _PIECES[data[0] % len(_PIECES)] if data else 1
    rest = data[1:]
    return [rest[at : at + size] for at in range(0, len(rest), size)]


def fuzz_codec(data: bytes) -> None:
    """A packet that was understood is written and read again as itself."""
    if len(data) < 2:
        return
    version, first_byte, body = _VERSIONS[data[0] & 3], data[1], data[2:]
    try:
        packet = codec.decode(first_byte, body, version)
    except ProtocolError:
        return
    if isinstance(packet, Connect):
        version = packet.version
    encoded = codec.encode(packet, version)
    found = scan(encoded, 0, len(encoded))
    assert found is not None
    again, start, end = found
    assert end == len(encoded)
    assert codec.decode(again, encoded[start:end], version) == packet


def fuzz_framing(data: bytes) -> None:
    """What is seen of a stream's beginning does not change when more of it comes."""
    whole = connect_client_id(data)
    for size in range(1, min(len(data), 64)):
        part = connect_client_id(data[:size])
        assert part is Peek.INCOMPLETE or part == whole or part is whole, size
    with contextlib.suppress(ProtocolError):
        found = scan(data, 0, _PACKET_MAX)
        if found is None:
            return
        first_byte, start, end = found
        assert 2 <= start <= end <= len(data)
        if first_byte >> 4 != PacketType.CONNECT:
            return
        answer_version(data[start:end])
        packet = codec.decode(first_byte, data[start:end], 0)
        assert isinstance(packet, Connect)
        assert whole == packet.client_id.encode()


def fuzz_properties(data: bytes) -> None:
    """A block that was understood is written and read again as itself."""
    if not data:
        return
    kind = _WITH_PROPERTIES[data[0] % len(_WITH_PROPERTIES)]
    try:
        block = properties.decode(Reader(data, 1, len(data)), kind)
    except ProtocolError:
        return
    encoded = properties.encode(block, kind)
    assert properties.decode(Reader(encoded, 0, len(encoded)), kind) == block


def _intake(side: str, version: int, pieces: list[bytes]) -> tuple[object, ...]:
    publisher = Publisher(side, version, max_packet=_MESSAGE_MAX)
    publisher.intake.receive_max = 5
    publisher.slow.add(b"slow")
    for number, piece in enumerate(pieces):
        publisher.intake.feed(piece)
        if number % 3 == 2:
            publisher.settle()
            publisher.intake.resume()
    intake = publisher.intake
    return (
        publisher.records(),
        publisher.packets,
        publisher.malformed,
        publisher.routes,
        publisher.outbox.take(),
        intake.outstanding,
        intake.closed,
        intake.paused,
    )


def fuzz_intake(data: bytes) -> None:
    """The compiled intake does what its twin does, whatever comes in whatever pieces."""
    pieces = _halves(data)
    version = V5 if data[:1] > b"\x7f" else V311
    expected, *others = (_intake(side, version, pieces) for side in SIDES)
    for found in others:
        assert found == expected


def _records(side: Side, batch: bytes) -> tuple[object, ...]:
    outcomes: list[object] = []
    for read in (
        side.records,
        side.max_qos,
        lambda each: side.cut(each, 61, 3),
        lambda each: side.slice_of(each, 61, 80, 2),
    ):
        try:
            outcomes.append(read(batch))
        except Corrupt:
            outcomes.append(Corrupt)
    return tuple(outcomes)


def fuzz_batch(data: bytes) -> None:
    """A damaged batch is noticed, by the kernel and its twin alike; its checksum is found out."""
    # A count that promises millions of records is bounded by the bytes that are there.
    expected, *others = (_records(Side(side), data) for side in SIDES)
    for found in others:
        assert found == expected
    with contextlib.suppress(Corrupt):
        header.check(data, int.from_bytes(data[57:61], "big"))
    at = header.next_whole(data, 0, 0, 1 << 62, data[:1] > b"\x7f")
    assert at == -1 or header.is_whole(data, at, header.header_at(data, at))


def fuzz_frames(data: bytes) -> None:
    """What a core writes, whatever the bytes and numbers in it, another one reads as the same."""
    if len(data) < 22:
        return
    flags, cut = data[0], data[1]
    epoch = int.from_bytes(data[2:6], "little")
    call, place = int.from_bytes(data[6:14], "little"), int.from_bytes(data[14:22], "little")
    name, rest = data[22 : 22 + cut], data[22 + cut :]
    on, off = bool(flags & 1), bool(flags & 2)
    number = frames.Number(epoch, place)
    pairs = [(call, place)] * (cut % 5)
    laws: list[tuple[object, object]] = [
        (frames.read_store(frames.store(epoch, call, rest, on)), ((epoch, call), on, rest)),
        (frames.read_retain(frames.retain(call, place, rest, on)), (call, place, on, rest)),
        (frames.read_keep(frames.keep(call, name, rest)), (call, name, rest)),
        (frames.read_want(frames.want(call, on, off, name)), (call, on, off, name)),
        (
            frames.read_wanted(frames.wanted(call, number, call, [place] * (cut % 5))),
            (call, number, call, [place] * (cut % 5)),
        ),
        (frames.read_scan(frames.scan(call, pairs, rest)), (call, pairs, rest)),
        (frames.read_join(frames.join(call, place, on, off, rest)), (call, place, on, off, rest)),
        (frames.read_leave(frames.leave(place, rest)), (place, rest)),
        (
            frames.read_hand(frames.hand(epoch, call, place, name, rest)),
            (epoch, call, place, name, rest),
        ),
        (frames.read_assign(frames.assign(place, name, rest)), (place, name, rest)),
        (frames.read_give_back(frames.give_back(name, rest)), (name, rest)),
    ]
    for found, expected in laws:
        assert found == expected
    with contextlib.suppress(Corrupt):
        frames.without_qos_0(frames.store(epoch, call, rest))


def fuzz_delay(data: bytes) -> None:
    """A delayed topic is due between now and the end of what its digits can say."""
    topic = b"$delayed/" + data
    assert is_delayed(topic)
    seconds = delay_seconds(topic, _NOW_MS)
    try:
        found = read_delay(topic, _NOW_MS)
    except ProtocolError:
        assert seconds == 0
        return
    assert found.due_ms >= _NOW_MS
    assert topic.endswith(b"/" + found.topic)
    validate_name(found.topic)


def fuzz_topic(data: bytes) -> None:
    """The codec takes the topic names and filters that the broker takes, and no others."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    if "\0" in text or len(data) > 1_000:
        return
    published, subscribed = raw.text(data), b"\0\1" + raw.text(data) + b"\0"
    assert _takes(lambda: codec.decode(0x30, published, V311)) == _takes(
        lambda: validate_name(data)
    )
    assert _takes(lambda: codec.decode(0x82, subscribed, V311)) == _takes(
        lambda: validate_filter(text)
    )


def _takes(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except ProtocolError:
        return False
    return True


def _frames(kernel: object, pieces: list[bytes]) -> tuple[object, ...]:
    reader = kernel.FrameReader(_MESSAGE_MAX)  # type: ignore[attr-defined]
    plain = b"".join(reader.feed(piece) for piece in pieces)
    return plain, reader.ping, reader.close, reader.failure


def fuzz_websocket(data: bytes) -> None:
    """Frames are taken apart alike by the kernel and its twin, and a handshake only breaks."""
    pieces = _halves(data)
    expected, *others = (_frames(kernel, pieces) for kernel in modules("websocket"))
    for found in others:
        assert found == expected
    layer = WebSocket(Terms("/mqtt", (), 4_096, _MESSAGE_MAX))
    try:
        for piece in pieces:
            layer.receive(piece)
            layer.outgoing()
    except Broken:
        assert len(layer.outgoing()) < 1_000
    assert layer.send(b"x") in {b"", b"\x82\x01x"}


def fuzz_proxy(data: bytes) -> None:
    """A header is the same however much of the stream is there behind its end."""
    try:
        found = proxy.parse(data, 1_024)
    except Broken:
        return
    if found is None:
        return
    assert 0 < found.length <= len(data)
    assert proxy.parse(data[: found.length], 1_024) == found
    assert proxy.parse(data + b"more", 1_024) == found
    for size in range(1, found.length):
        assert proxy.parse(data[:size], 1_024) is None


def fuzz_scram(data: bytes) -> None:
    """A client that does not know the password never gets through."""
    first, _, final = data.partition(b"\n")
    server = ScramServer(lambda _name: _KEPT, "server")
    with contextlib.suppress(ScramError):
        server.first(first)
        server.final(final)
        raise AssertionError("a proof without a password was taken")


def _kafka_request(api: int, version: int, message: Message) -> bytes:
    return b"".join(kafka_codec.encode_request(api, version, 1, "client", message))


def _kafka_response(api: int, version: int, message: Message) -> bytes:
    return b"".join(kafka_codec.encode_response(api, version, 1, message))


def _read_kafka_request(api: int, version: int, data: bytes) -> Message:
    header = kafka_codec.decode_request_header(data)
    return kafka_codec.decode_request(api, version, data, header.body_at)


def _read_kafka_response(api: int, version: int, data: bytes) -> Message:
    return kafka_codec.decode_response(api, version, data)[1]


def fuzz_kafka_codec(data: bytes) -> None:
    """A message of Kafka that was understood is written, and read again as the same.

    The bytes are compared, since what is not a number is not itself.
    """
    if len(data) < 3 or data[1] not in APIS or not APIS[data[1]].speaks(data[2]):
        return
    api, version = data[1], data[2]
    read, write = (
        (_read_kafka_response, _kafka_response)
        if data[0] & 1
        else (_read_kafka_request, _kafka_request)
    )
    try:
        message = read(api, version, data[3:])
    except ProtocolError:
        return
    written = write(api, version, message)
    assert write(api, version, read(api, version, written)) == written


def fuzz_kafka_connection(data: bytes) -> None:
    """Whatever a client sends: what is whole is asked, the rest waits, or the connection ends."""
    settings = KafkaRuntime(sasl=KafkaSasl(enabled=bool(data) and data[0] >= len(_PIECES)))
    desk = Desk(settings, users=_KAFKA_USERS if settings.sasl.enabled else ())
    client = desk.client()
    for piece in _halves(data):
        client.connection.feed(piece)
        desk.logins.look()
        assert not (settings.sasl.enabled and client.connection.principal is None and desk.calls)
    asked = len(desk.calls)
    assert asked <= settings.max_inflight_requests
    client.connection.lost()
    for call in list(desk.calls):
        call.answer(None)
    assert client.frames() == []
    assert len(desk.calls) == asked


def fuzz_kafka_framing(data: bytes) -> None:
    """The kernel and its twin give out the same frames, and hold as much at any time."""
    framings = [module.Framing(_PACKET_MAX) for module in modules("framing")]
    for number, piece in enumerate(_halves(data)):
        found = []
        for framing in framings:
            framing.feed(piece)
            frame, fault = None, ""
            if number % 2:
                try:
                    frame = framing.next()
                except ProtocolError as error:
                    fault = error.detail
            found.append((frame, fault, framing.held))
        assert all(each == found[0] for each in found)


TARGETS: Final[Mapping[str, Target]] = {
    name.removeprefix("fuzz_"): target
    for name, target in list(globals().items())
    if name.startswith("fuzz_")
}

_CONNECT: Final = raw.connect(
    V5,
    "client",
    will=raw.Will("will/topic", b"gone", 1, True, raw.block((raw.WILL_DELAY, 5))),
    username="user",
    password=b"secret",
    properties=raw.block((raw.SESSION_EXPIRY, 60), (raw.USER_PROPERTY, ("a", "b"))),
)
_MESSAGE: Final = raw.block(
    (raw.PAYLOAD_FORMAT, 1),
    (raw.MESSAGE_EXPIRY, 9),
    (raw.CONTENT_TYPE, "text"),
    (raw.RESPONSE_TOPIC, "answers"),
    (raw.CORRELATION_DATA, b"\0"),
    (raw.USER_PROPERTY, ("a", "b")),
    (raw.TOPIC_ALIAS, 3),
)
_STREAM: Final = b"".join(
    (
        raw.publish(V311, "a/b", b"payload"),
        raw.publish(V311, "a/b", b"payload", 1, 7) * 3,
        raw.publish(V311, "slow", b"", 2, 8),
        raw.answer(raw.PUBACK, 7),
        raw.PING,
    )
)


def _batch() -> bytes:
    builder = Publisher("pure")
    builder.intake.feed(_STREAM)
    builder.records()
    return builder.batches[0][0]


def _kafka_seeds() -> list[bytes]:
    """Return every message that Kafka's clients send, in the newest version."""
    rng = random.Random(1)
    seeds = []
    for api, version, is_response in kafka_messages.cases():
        if version != api.newest:
            continue
        message = kafka_messages.message_of((api, version, is_response), rng)
        write = _kafka_response if is_response else _kafka_request
        seeds.append(bytes((is_response, api.key, version)) + write(api.key, version, message))
    return seeds


def _kafka_stream(api: int, version: int, message: Message) -> bytes:
    """Return a request as it travels."""
    data = _kafka_request(api, version, message)
    return len(data).to_bytes(4, "big") + data


def _kafka_streams() -> list[bytes]:
    """Return what clients begin with: without a proof, and with one."""
    software = ApiVersionsRequest(client_software_name="a", client_software_version="1")
    versions = _kafka_stream(ApiKey.API_VERSIONS, 3, software)
    metadata = _kafka_stream(ApiKey.METADATA, 12, MetadataRequest())
    plain = SaslHandshakeRequest(mechanism="PLAIN")
    proof = SaslAuthenticateRequest(auth_bytes=b"\0user\0pencil")
    shake = _kafka_stream(ApiKey.SASL_HANDSHAKE, 1, plain)
    proved = shake + _kafka_stream(ApiKey.SASL_AUTHENTICATE, 2, proof) + metadata
    bare = _kafka_stream(ApiKey.SASL_HANDSHAKE, 0, plain) + b"\0\0\0\x0c\0user\0pencil"
    known, unknown = bytes((5,)), bytes((len(_PIECES) + 5,))
    return [
        known + versions + metadata * 3,
        known + b"\0\0\0\x0b\0\x12\0\x63\0\0\0\7\xff\xff\0" + metadata,
        unknown + versions + proved,
        unknown + bare + metadata,
    ]


SEEDS: Final[Mapping[str, list[bytes]]] = {
    "codec": [
        bytes((2, each[0])) + each[2:]
        for each in (
            _CONNECT,
            raw.publish(V5, "a/b", b"payload", 1, 7, properties=_MESSAGE),
            raw.subscribe(V5, 1, ("a/+", 1), ("$share/g/#", 0x22)),
            raw.unsubscribe(V5, 1, "a/+", "b"),
            raw.answer(raw.PUBREC, 7, b"\x97\0"),
            raw.disconnect(4, raw.block((raw.REASON_STRING, "bye"))),
        )
    ],
    "framing": [_CONNECT, raw.connect(V311, "c"), raw.connect(V31, "c"), _STREAM],
    "properties": [b"\3" + raw.varint(len(_MESSAGE)) + _MESSAGE],
    "intake": [b"\0" + _STREAM, b"\5" + _STREAM],
    "batch": [_batch(), b"\x80" + _batch()],
    "frames": [bytes(range(22)) + _batch(), b"\3\4" + bytes(20) + b"name" + _batch()],
    "delay": [b"10/a/b", b"1700000100/a", b"1/$delayed/1/a"],
    "topic": [b"a/b", b"+/#", b"$share/g/a", "\u20ac/\ufeff".encode()],
    "websocket": [
        b"\5" + request(),
        b"\4" + masked(b"abc") + masked(b"de", 9) + masked(b"\3\xe8", 8),
        b"\5" + request() + masked(b"f", fin=False) + masked(b"g", 0),
    ],
    "proxy": [
        b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 1883\r\n",
        b"PROXY UNKNOWN\r\n",
        proxy.SIGNATURE + b"\x21\x11\0\x0c" + bytes(12),
        proxy.SIGNATURE + b"\x21\x21\0\x30" + bytes(36) + b"\x20\0\x09\7\0\0\0\0\x22\0\1a",
        proxy.SIGNATURE + b"\x20\0\0\0",
    ],
    "kafka_codec": _kafka_seeds(),
    "kafka_connection": _kafka_streams(),
    "kafka_framing": [
        b"\3" + b"\0\0\0\3abc\0\0\0\0\0\0\1\0" + bytes(90),
        b"\4\0\0\0\x09" + bytes(9) + b"\xff\xff\xff\xff",
    ],
    "scram": [b"n,,n=user,r=client\nc=biws,r=clientserver,p=AAAA", b"y,a=u,n=u,r=x\nc=eSw="],
}
