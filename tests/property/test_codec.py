"""Laws of the codec: what is encoded comes back, and garbage is an error of the peer."""

from collections.abc import Callable
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from robustmq.errors import ProtocolError
from robustmq.message import topic
from robustmq.mqtt import properties
from robustmq.mqtt.codec import decode, encode
from robustmq.mqtt.framing import Peek, answer_version, connect_client_id, scan
from robustmq.mqtt.packets import (
    ANSWER_REASONS,
    V5,
    V31,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    PacketType,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)
from robustmq.mqtt.properties import TABLE, WILL
from robustmq.mqtt.reasons import V3_REASONS, Reason
from robustmq.mqtt.wire import Reader, binary, varint

LIMIT = 1 << 28
CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
TEXTS = st.text(CHARACTERS, max_size=20)
NAMES = st.text(
    st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=20
)
TOPICS = NAMES.map(str.encode)
LEVELS = st.one_of(st.just("+"), st.sampled_from(["", "a", "ü", "$SYS"]))
INNER_FILTERS = st.builds(
    lambda levels, tail: "/".join([*levels, *tail]) or "/",
    st.lists(LEVELS, min_size=1, max_size=5),
    st.sampled_from([[], ["#"]]),
)
FILTERS = st.one_of(INNER_FILTERS, INNER_FILTERS.map("$share/g/".__add__))
PACKET_IDS = st.integers(1, 65_535)
VERSIONS = st.sampled_from([3, 4, 5])
BYTES = st.binary(max_size=40)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "response_topic": NAMES,
    "user_properties": st.lists(st.tuples(TEXTS, TEXTS), max_size=3).map(tuple),
}
BY_KIND: dict[Any, st.SearchStrategy[Any]] = {
    Reader.byte: st.integers(0, 255),
    Reader.two: st.integers(0, 65_535),
    Reader.four: st.integers(0, 0xFFFFFFFF),
    Reader.text: TEXTS,
    Reader.binary: BYTES,
}


@st.composite
def blocks(draw: st.DrawFn, packet: int) -> Properties | None:
    """Draw properties that the packet may carry; None stands for none at all."""
    values: dict[str, Any] = {}
    for rule in TABLE:
        if packet not in rule.packets or not draw(st.booleans()):
            continue
        if rule.name == "subscription_identifiers":
            most = 3 if packet == PacketType.PUBLISH else 1
            identifiers = st.lists(st.integers(1, 268_435_455), max_size=most)
            values[rule.name] = tuple(draw(identifiers))
            continue
        if rule.highest == 1:
            kind: st.SearchStrategy[Any] = st.integers(0, 1)
        else:
            kind = VALUES[rule.name] if rule.name in VALUES else BY_KIND[rule.kind.read]
        if rule.lowest:
            kind = kind.filter(bool)
        values[rule.name] = draw(kind)
    if "authentication_data" in values:
        values.setdefault("authentication_method", "m")
    drawn = Properties(**values)
    return None if drawn == Properties() else drawn


def block_for(version: int, packet: int) -> st.SearchStrategy[Properties | None]:
    return blocks(packet) if version == V5 else st.none()


def reasons_of(packet: PacketType, version: int) -> st.SearchStrategy[Reason]:
    if version == V5:
        return st.sampled_from(list(ANSWER_REASONS[packet].values()))
    if packet == PacketType.CONNACK:
        return st.sampled_from(V3_REASONS)
    if packet == PacketType.SUBACK:
        return st.sampled_from([Reason(0), Reason(1), Reason(2), Reason(0x80)])
    return st.just(Reason.SUCCESS)


@st.composite
def connects(draw: st.DrawFn, version: int) -> Connect:
    will = None
    if draw(st.booleans()):
        will = Will(
            draw(TOPICS),
            draw(BYTES),
            draw(st.integers(0, 2)),
            draw(st.booleans()),
            draw(block_for(version, WILL)),
        )
    username = draw(st.none() | TEXTS)
    password = draw(st.none() | BYTES) if version == V5 or username is not None else None
    return Connect(
        draw(TEXTS),
        version,
        draw(st.booleans()),
        draw(st.integers(0, 65_535)),
        username,
        password,
        will,
        draw(block_for(version, PacketType.CONNECT)),
    )


@st.composite
def publishes(draw: st.DrawFn, version: int) -> Publish:
    qos = draw(st.integers(0, 2))
    block = draw(block_for(version, PacketType.PUBLISH))
    alias = block is not None and block.topic_alias is not None
    return Publish(
        draw(st.just(b"") | TOPICS if alias else TOPICS),
        draw(BYTES),
        qos,
        draw(st.booleans()),
        draw(st.booleans()) if qos else False,
        draw(PACKET_IDS) if qos else 0,
        block,
    )


@st.composite
def subscriptions(draw: st.DrawFn, version: int) -> Subscription:
    topic_filter, qos = draw(FILTERS), draw(st.integers(0, 2))
    if version < V5:
        return Subscription(topic_filter, qos)
    no_local = draw(st.booleans()) and not topic_filter.startswith("$share/")
    return Subscription(topic_filter, qos, no_local, draw(st.booleans()), draw(st.integers(0, 2)))


def answers(shape: type[Packet], packet: PacketType, version: int) -> st.SearchStrategy[Packet]:
    return st.builds(shape, PACKET_IDS, reasons_of(packet, version), block_for(version, packet))


def packets_of(version: int) -> list[st.SearchStrategy[Packet]]:
    """Return a strategy for every packet type that the version has."""

    def many(packet: PacketType) -> st.SearchStrategy[list[Reason]]:
        return st.lists(reasons_of(packet, version), min_size=1, max_size=4)

    unsuback = many(PacketType.UNSUBACK) if version == V5 else st.just([])
    every: list[st.SearchStrategy[Any]] = [
        connects(version),
        publishes(version),
        st.builds(
            Connack,
            reasons_of(PacketType.CONNACK, version),
            st.booleans(),
            block_for(version, PacketType.CONNACK),
        ),
        answers(Puback, PacketType.PUBACK, version),
        answers(Pubrec, PacketType.PUBREC, version),
        answers(Pubrel, PacketType.PUBREL, version),
        answers(Pubcomp, PacketType.PUBCOMP, version),
        st.builds(
            Subscribe,
            PACKET_IDS,
            st.lists(subscriptions(version), min_size=1, max_size=4),
            block_for(version, PacketType.SUBSCRIBE),
        ),
        st.builds(
            Suback, PACKET_IDS, many(PacketType.SUBACK), block_for(version, PacketType.SUBACK)
        ),
        st.builds(
            Unsubscribe,
            PACKET_IDS,
            st.lists(FILTERS, min_size=1, max_size=4),
            block_for(version, PacketType.UNSUBSCRIBE),
        ),
        st.builds(Unsuback, PACKET_IDS, unsuback, block_for(version, PacketType.UNSUBACK)),
        st.builds(Pingreq),
        st.builds(Pingresp),
        st.builds(
            Disconnect,
            reasons_of(PacketType.DISCONNECT, version),
            block_for(version, PacketType.DISCONNECT),
        ),
    ]
    if version == V5:
        every.append(st.builds(Auth, reasons_of(PacketType.AUTH, version), blocks(PacketType.AUTH)))
    return every


ENCODED = VERSIONS.flatmap(lambda v: st.tuples(st.one_of(packets_of(v)), st.just(v)))


def fault_of(act: Callable[[], object]) -> int | None:
    """Return the reason of the ProtocolError that something raises, None when it does not."""
    try:
        act()
    except ProtocolError as error:
        return error.reason
    return None


def check_bytes(data: bytes, version: int) -> None:
    """Take bytes for a stream: each step gives a packet or a ProtocolError, and moves on."""
    offset = 0
    error: ProtocolError | None = None
    while error is None:
        try:
            frame = scan(data, offset, LIMIT)
            packet = decode(frame[0], data[frame[1] : frame[2]], version) if frame else None
        except ProtocolError as caught:
            error = caught
            continue
        if frame is None or packet is None:
            return
        assert offset < frame[1] <= frame[2] <= len(data)
        offset = frame[2]
        again = encode(packet, version)
        # What was accepted means the same after a round trip, if not in the same bytes.
        other = scan(again, 0, LIMIT)
        assert other is not None
        assert decode(other[0], again[other[1] :], version) == packet
    assert error.detail
    assert error.reason in {
        Reason.MALFORMED_PACKET,
        Reason.PROTOCOL_ERROR,
        Reason.UNSUPPORTED_PROTOCOL_VERSION,
        Reason.TOPIC_FILTER_INVALID,
        Reason.TOPIC_NAME_INVALID,
        Reason.TOPIC_ALIAS_INVALID,
    }


@given(ENCODED)
def test_what_is_encoded_comes_back(case: tuple[Packet, int]) -> None:
    packet, version = case
    data = encode(packet, version)
    frame = scan(data, 0, LIMIT)
    assert frame is not None
    first_byte, start, end = frame
    assert end == len(data)
    assert decode(first_byte, data[start:], version) == packet


@given(ENCODED, st.data())
def test_a_packet_cut_short_is_an_error_or_another_packet(
    case: tuple[Packet, int], data: st.DataObject
) -> None:
    packet, version = case
    encoded = encode(packet, version)
    frame = scan(encoded, 0, LIMIT)
    assert frame is not None
    body = encoded[frame[1] :]
    short = body[: data.draw(st.integers(0, len(body)))]
    check_bytes(encoded[:1] + varint(len(short)) + short, version)
    for size in range(len(encoded)):
        assert scan(encoded[:size], 0, LIMIT) is None


@given(ENCODED, st.data())
def test_a_mutated_packet_is_a_packet_or_an_error(
    case: tuple[Packet, int], data: st.DataObject
) -> None:
    packet, version = case
    encoded = bytearray(encode(packet, version))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(encoded) - 1))
        encoded[at] = data.draw(st.integers(0, 255))
    check_bytes(bytes(encoded), version)


@given(st.integers(0, 255), st.binary(max_size=60), VERSIONS)
@example(0x10, b"\0\4MQTT\5\2\0\0\xff\xff\xff\x7f", 5)
def test_garbage_is_a_packet_or_an_error(first_byte: int, body: bytes, version: int) -> None:
    check_bytes(bytes((first_byte,)) + varint(len(body)) + body, version)
    check_bytes(bytes((first_byte,)) + body, version)
    assert answer_version(body) in {0, 3, 4, 5}


@given(st.binary(max_size=40))
def test_any_beginning_of_a_stream_is_judged(data: bytes) -> None:
    assert isinstance(connect_client_id(data), bytes | Peek)
    assert isinstance(connect_client_id(b"\x10" + data), bytes | Peek)


@given(VERSIONS.flatmap(connects), st.binary(max_size=5))
def test_the_peeked_client_identifier_is_the_decoded_one(packet: Connect, more: bytes) -> None:
    data = encode(packet, packet.version) + more
    answers_by_size = [connect_client_id(data[:size]) for size in range(len(data) + 1)]
    known = answers_by_size.index(packet.client_id.encode())
    assert set(answers_by_size[:known]) <= {Peek.INCOMPLETE}
    assert set(answers_by_size[known:]) == {packet.client_id.encode()}


@given(
    st.text(st.sampled_from("ab+#/$"), max_size=8), st.sampled_from(["", "$share/", "$share/g/"])
)
def test_codec_and_topic_rules_agree_on_filters(tail: str, head: str) -> None:
    topic_filter = head + tail
    body = b"\0\1" + binary(topic_filter.encode()) + b"\0"
    rule = fault_of(lambda: topic.validate_filter(topic_filter))
    assert fault_of(lambda: decode(0x82, body, V31)) == rule
    assert rule in {None, Reason.TOPIC_FILTER_INVALID}


@given(
    st.binary(min_size=1, max_size=6) | st.text(st.sampled_from("a+#/"), min_size=1).map(str.encode)
)
def test_codec_and_topic_rules_agree_on_names(name: bytes) -> None:
    rule = fault_of(lambda: topic.validate_name(name))
    assert (fault_of(lambda: decode(0x30, binary(name), V31)) is None) == (rule is None)


@given(st.sampled_from([WILL, *ANSWER_REASONS, PacketType.PUBLISH]), st.binary(max_size=40))
def test_any_property_block_is_properties_or_an_error(packet: int, block: bytes) -> None:
    data = varint(len(block)) + block
    try:
        decoded = properties.decode(Reader(data, 0, len(data)), packet)
    except ProtocolError:
        return
    encoded = properties.encode(decoded, packet)
    assert properties.decode(Reader(encoded, 0, len(encoded)), packet) == decoded
