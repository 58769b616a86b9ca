"""Admission: what is refused, with which code, in which order."""

import pytest

from robustmq.errors import Refusal, Refused
from robustmq.policy.admission import Admission
from robustmq.policy.principal import Principal

WHO = Principal("client", "user", "127.0.0.1")


def code(refused: Refused | None) -> Refusal | None:
    return None if refused is None else refused.code


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        (b"a", None),
        (b"a/b/c", None),
        (b"a/b/c/d", Refusal.TOPIC_INVALID),
        (b"///", Refusal.TOPIC_INVALID),
        (b"$SYS", Refusal.NOT_AUTHORIZED),
        (b"$SYS/a", Refusal.NOT_AUTHORIZED),
        (b"$SYS/a/b/c/d", Refusal.NOT_AUTHORIZED),
        (b"$SYSTEM/a", None),
        (b"$other", None),
        (b"a/$SYS", None),
    ],
)
def test_publish(topic: bytes, expected: Refusal | None) -> None:
    assert code(Admission(3).publish(WHO, topic)) is expected


@pytest.mark.parametrize(
    ("topic_filter", "expected"),
    [
        ("a/+/#", None),
        ("a/+/b/#", Refusal.TOPIC_INVALID),
        ("$SYS/#", None),
        ("$share/group/a/b/c", None),
        ("$share/group/a/b/c/d", Refusal.TOPIC_INVALID),
    ],
)
def test_subscribe(topic_filter: str, expected: Refusal | None) -> None:
    assert code(Admission(3).subscribe(WHO, topic_filter)) is expected


def test_a_refusal_says_who_what_and_which_setting() -> None:
    tree = Admission(3).publish(WHO, b"$SYS/x")
    levels = Admission(3).publish(WHO, b"a/b/c/d")
    assert tree is not None
    assert levels is not None
    assert "client" in tree.detail
    assert "more than 3 levels" in levels.detail
    assert "mqtt_runtime.protocol.max_topic_levels" in levels.detail


def test_bridges_tell_their_state_and_nothing_else() -> None:
    admission = Admission(10)
    assert admission.publish(WHO, b"$SYS/broker/connection/me/state") is None
    for topic in (b"$SYS/broker/connection/me", b"$SYS/broker/connection/me/x"):
        assert code(admission.publish(WHO, topic)) is Refusal.NOT_AUTHORIZED
