"""Reason codes: every answer gets a code that its packet may carry."""

import pytest

from robustmq.errors import Refusal
from robustmq.mqtt import reasons
from robustmq.mqtt.packets import ANSWER_REASONS, PacketType
from robustmq.mqtt.reasons import Reason


@pytest.mark.parametrize(
    ("table", "packets"),
    [
        (reasons.CONNECTION_REFUSALS, [PacketType.CONNACK]),
        (reasons.PUBLISH_REFUSALS, [PacketType.PUBACK, PacketType.PUBREC]),
        (reasons.SUBSCRIBE_REFUSALS, [PacketType.SUBACK]),
    ],
)
def test_every_refusal_has_a_failure_that_its_answer_may_carry(
    table: dict[Refusal, Reason], packets: list[PacketType]
) -> None:
    assert set(table) == set(Refusal)
    for reason in table.values():
        assert reasons.is_error(reason)
        for packet in packets:
            assert reason in ANSWER_REASONS[packet]


def test_failures_begin_at_0x80() -> None:
    assert not reasons.is_error(Reason.REAUTHENTICATE)
    assert reasons.is_error(Reason.UNSPECIFIED_ERROR)


@pytest.mark.parametrize("code", range(6))
def test_return_codes_of_mqtt_3_survive_both_ways(code: int) -> None:
    assert reasons.connack_v3(reasons.V3_REASONS[code]) == code


@pytest.mark.parametrize("reason", [r for r in Reason if reasons.is_error(r)])
def test_no_failure_looks_like_success_to_mqtt_3(reason: Reason) -> None:
    assert 1 <= reasons.connack_v3(reason) <= 5


def test_what_mqtt_3_has_no_word_for_is_server_unavailable() -> None:
    assert reasons.connack_v3(Reason.QUOTA_EXCEEDED) == reasons.V3_SERVER_UNAVAILABLE
    assert reasons.connack_v3(Reason.BANNED) == reasons.V3_NOT_AUTHORIZED


def test_the_codes_are_all_43_of_the_specification() -> None:
    values = {reason.value for reason in Reason}
    assert len(values) == 43
    assert values == {0, 1, 2, 4, 0x10, 0x11, 0x18, 0x19, *range(0x80, 0xA3)}
