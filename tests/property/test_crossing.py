"""Messages through a log and back: MQTT has what it had, with the key in front."""

from hypothesis import given
from hypothesis import strategies as st

from robustmq.message.crossing import from_log, murmur2, to_log
from robustmq.message.record import header_block
from robustmq.mqtt import properties as block
from robustmq.mqtt.headers import describe, to_headers
from robustmq.mqtt.packets import V5, PacketType, Properties
from robustmq.mqtt.wire import Reader, varint

NOW = 1_700_000_000_000
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NAMES = TEXT | st.sampled_from(
    ["key", "mqtt.x", "mqtt.user.y", "robustmq.publisher", "mqtt.content-type"]
)
MESSAGES = st.builds(
    Properties,
    payload_format=st.none() | st.integers(0, 1),
    content_type=st.none() | TEXT,
    response_topic=st.none() | st.just("answers/1"),
    correlation_data=st.none() | st.binary(max_size=20),
    user_properties=st.lists(st.tuples(NAMES, TEXT | st.just("a/b")), max_size=5).map(tuple),
)


def read(encoded: bytes) -> Properties:
    whole = varint(len(encoded)) + encoded
    return block.decode(Reader(whole, 0, len(whole)), PacketType.PUBLISH) or Properties()


@given(MESSAGES, st.none() | st.integers(1, 0xFFFFFFFF), st.integers(0, 1 << 60), TEXT)
def test_there_and_back_is_the_same(
    message: Properties, expiry: int | None, publisher: int, text: str
) -> None:
    message.message_expiry_interval = expiry
    payload = text.encode()
    headers = to_headers(message, NOW, 0, publisher, "client")
    key, kept, is_keyed = to_log(b"a/b", headers, NOW)
    back, deadline = from_log(b"a/b", key, payload, kept, NOW)
    encoded, said, whose = describe(back, V5)
    assert said == deadline == (NOW + expiry * 1_000 if expiry is not None else 0)
    assert whose == 0
    found, wanted = read(encoded), read(describe(headers, V5)[0])
    keys = [value for name, value in wanted.user_properties if name == "key"]
    assert is_keyed == bool(keys)
    assert key == (keys[0].encode() if keys else b"a/b")
    assert [v for n, v in found.user_properties if n == "key"] == keys
    others = [each for each in wanted.user_properties if each[0] != "key"]
    assert [each for each in found.user_properties if each[0] != "key"] == others
    found.user_properties = wanted.user_properties = ()
    assert found == wanted


@given(
    st.none() | st.binary(max_size=30),
    st.lists(
        st.tuples(
            st.binary(max_size=12)
            | st.sampled_from(
                [
                    b"key",
                    b"mqtt.content-type",
                    b"mqtt.payload-format",
                    b"mqtt.response-topic",
                    b"mqtt.correlation-data",
                    b"mqtt.message-expiry-interval",
                    b"mqtt.user.",
                    b"robustmq.expires-at-ms",
                    b"robustmq.publisher",
                ]
            ),
            st.none() | st.binary(max_size=12) | TEXT.map(str.encode),
        ),
        max_size=6,
    ),
    st.binary(max_size=10),
)
def test_whatever_a_log_has_a_client_of_mqtt_can_read(
    key: bytes | None, headers: list[tuple[bytes, bytes | None]], value: bytes
) -> None:
    back, deadline = from_log(b"a/b", key, value, header_block(headers), NOW)
    encoded, said, publisher = describe(back, V5)
    assert (said, publisher) == (deadline, 0)
    # The codec, which knows what a PUBLISH may carry, takes it.
    read(encoded)


@given(st.binary(max_size=40))
def test_the_hash_has_32_bits(data: bytes) -> None:
    assert 0 <= murmur2(data) < 1 << 32
