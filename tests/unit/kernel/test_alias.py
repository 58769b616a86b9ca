"""Topic aliases: a PUBLISH of MQTT 5 rewritten, checked with an independent decoder."""

import pytest

from tests.datapath import SIDES, Publish, Side, decode, publish


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> Side:
    return Side(request.param)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("block", [b"", b"\x01\x01", b"\x26\0\x01k\0\x75" + bytes(117)])
@pytest.mark.parametrize("size", [0, 1, 100, 120, 130, 16_300, 16_400])
def test_alias_is_added_and_all_else_stays(
    side: Side, keep: bool, qos: int, block: bytes, size: int
) -> None:
    packet = publish(b"a/topic", bytes(size), qos, 77 if qos else 0, 5, block)
    topic = b"a/topic" if keep else b""
    assert decode(side.with_alias(packet, 0x1234, keep), 5) == [
        Publish(topic, bytes(size), qos, False, False, 77 if qos else 0, b"\x23\x12\x34" + block)
    ]


def test_what_is_no_alias_or_no_packet_is_refused(side: Side) -> None:
    packet = publish(b"t", b"x", 1, 1, 5, b"\x01\x01")
    for alias in (0, 65536, -1):
        with pytest.raises(ValueError, match="alias"):
            side.with_alias(packet, alias, True)
    for cut in range(1, len(packet) - 1):
        with pytest.raises(ValueError, match="PUBLISH"):
            side.with_alias(packet[:cut], 1, True)
