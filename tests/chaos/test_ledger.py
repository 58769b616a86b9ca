"""The ledger finds each kind of fault, and none where there is none."""

import pytest

from tests.chaos.ledger import Ledger, Stream, matches, named

STREAM = Stream("pub", "a/b", 2)


def told(*, qos: int = 2, count: int = 5) -> Ledger:
    """A ledger of one subscriber and as many acknowledged messages."""
    ledger = Ledger()
    ledger.asks("sub", "a/+", qos)
    ledger.subscribed("sub", "a/+")
    for _ in range(count):
        ledger.acknowledged(STREAM, ledger.sends(STREAM))
    return ledger


def give(ledger: Ledger, *numbers: int, qos: int = 2) -> None:
    for number in numbers:
        ledger.delivered("sub", STREAM.topic, qos, STREAM.payload(number))


def test_all_in_order_is_no_fault() -> None:
    ledger = told()
    give(ledger, *range(5))
    verdict = ledger.verdict()
    assert verdict.faults() == {}
    assert (verdict.sent, verdict.acknowledged, verdict.owed, verdict.delivered) == (5, 5, 5, 5)
    assert ledger.missing() == 0


def test_what_is_acknowledged_and_does_not_come_is_lost() -> None:
    ledger = told()
    give(ledger, 0, 1, 4)
    assert ledger.missing() == 2
    assert ledger.verdict().faults() == {"lost": 2}
    assert "2, 3" in ledger.verdict().examples[0]


def test_what_is_not_acknowledged_may_come_or_not() -> None:
    ledger = told(count=0)
    for _ in range(3):
        ledger.sends(STREAM)
    ledger.refused(STREAM, 2)
    give(ledger, 0)
    verdict = ledger.verdict()
    assert verdict.faults() == {}
    assert (verdict.unanswered, verdict.refused, verdict.owed) == (2, 1, 0)


def test_what_was_sent_before_suback_is_not_owed() -> None:
    ledger = Ledger()
    ledger.asks("sub", "#", 2)
    number = ledger.sends(STREAM)
    ledger.subscribed("sub", "#")
    ledger.acknowledged(STREAM, number)
    assert ledger.verdict().owed == 0
    give(ledger, number)
    assert ledger.verdict().faults() == {}


def test_a_subscriber_that_was_forgotten_is_still_owed() -> None:
    ledger = told()
    ledger.forgotten("sub")
    ledger.asks("sub", "a/+", 2)
    ledger.subscribed("sub", "a/+")
    assert ledger.verdict().faults() == {"lost": 5, "forgotten": 1}


def test_a_second_delivery_is_a_duplicate_at_qos_2_only() -> None:
    ledger = told()
    give(ledger, 0, 1, 1, 2, 3, 4)
    assert ledger.verdict().faults() == {"duplicates": 1}
    ledger = told(qos=1)
    give(ledger, 0, 1, 2, 1, 2, 3, 4, qos=1)
    assert ledger.verdict().faults() == {}
    assert ledger.verdict().repeats == 2


@pytest.mark.parametrize("qos", [1, 2])
def test_a_first_delivery_after_a_later_one_is_disorder(qos: int) -> None:
    ledger = told(qos=qos)
    give(ledger, 0, 2, 1, 3, 4, qos=qos)
    assert ledger.verdict().faults() == {"disordered": 1}


def test_what_was_never_sent_or_asked_for_is_corrupt() -> None:
    ledger = told()
    give(ledger, *range(5))
    give(ledger, 5)
    give(ledger, 0, qos=1)
    payload = STREAM.payload(3)
    ledger.delivered("sub", "a/c", 2, payload)
    ledger.delivered("sub", "a/b", 2, payload[:-1])
    ledger.delivered("other", "a/b", 2, payload)
    assert ledger.verdict().faults() == {"corrupt": 5}


def test_the_protocol_is_a_matter_of_its_own() -> None:
    ledger = told(count=0)
    ledger.breach("sub", "packet 15")
    assert ledger.verdict().faults() == {"breaches": 1}


def test_payloads_name_themselves() -> None:
    for number in (0, 1, 50, 1_000):
        payload = STREAM.payload(number)
        assert named(payload) == (STREAM, number)
        assert named(payload + b"x") is None
    assert named(b"") is None
    assert named(b"a b c d ") is None


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a", False),
        ("a", "a/b", False),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/#", "a", True),
        ("#", "a/b", True),
        ("+/b", "a/b", True),
        ("+/b", "a/c", False),
    ],
)
def test_filters(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected


def test_the_members_of_a_group_are_one_subscriber_without_an_order() -> None:
    ledger = Ledger()
    ledger.asks("$share/crew/a/b", "a/b", 2)
    ledger.subscribed("$share/crew/a/b", "a/b")
    for _ in range(3):
        ledger.acknowledged(STREAM, ledger.sends(STREAM))
    for number in (2, 0):
        ledger.delivered("$share/crew/a/b", STREAM.topic, 2, STREAM.payload(number))
    assert ledger.verdict().faults() == {"lost": 1}
    ledger.delivered("$share/crew/a/b", STREAM.topic, 2, STREAM.payload(2))
    assert ledger.verdict().faults() == {"lost": 1, "duplicates": 1}


def test_what_is_between_some_is_counted_apart() -> None:
    ledger = Ledger()
    for subscriber in ("one", "two"):
        ledger.asks(subscriber, "a/b", 1)
        ledger.subscribed(subscriber, "a/b")
    for _ in range(3):
        ledger.acknowledged(STREAM, ledger.sends(STREAM))
    for number in (1, 0):
        ledger.delivered("one", STREAM.topic, 1, STREAM.payload(number))
    everybody = {STREAM.publisher}
    assert ledger.between({"one"}, everybody) == {"owed": 3, "missing": 1, "disordered": 1}
    assert ledger.between({"two"}, everybody) == {"owed": 3, "missing": 3, "disordered": 0}
    assert ledger.between({"one", "two"}, set()) == {"owed": 0, "missing": 0, "disordered": 0}
