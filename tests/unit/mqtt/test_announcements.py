"""What the server publishes itself, and that it alone may do so below $SYS."""

import pytest

from robustmq.broker.api import SERVER, Principal
from robustmq.errors import Refusal, Refused
from robustmq.mqtt.announcements import Announcements
from robustmq.policy.admission import Admission
from tests.unit.mqtt.scripted import ScriptedBroker


def test_messages_are_published_as_told() -> None:
    broker = ScriptedBroker()
    announcements = Announcements(broker)
    messages = [["$SYS/a", b"1", 0, True], ["$SYS/b", b"2", 1, False]]
    assert announcements.asked({"messages": messages}) == 2
    seen = [(each.record.key, each.record.value, each.record.qos) for each in broker.published]
    assert seen == [(b"$SYS/a", b"1", 0), (b"$SYS/b", b"2", 1)]
    assert [each.record.retain for each in broker.published] == [True, False]


@pytest.mark.parametrize("messages", [7, [["$SYS/a", b""]]])
def test_what_is_no_message_is_refused(messages: object) -> None:
    with pytest.raises(ValueError, match="topic, payload, qos and retain"):
        Announcements(ScriptedBroker()).asked({"messages": messages})


def test_only_the_server_may_publish_below_sys() -> None:
    admission = Admission(10)
    assert admission.publish(SERVER, b"$SYS/a") is None
    # A client may call itself what it likes.
    for client in (Principal("x"), Principal("$server", listener="", superuser=True)):
        refused = admission.publish(client, b"$SYS/a")
        assert isinstance(refused, Refused)
        assert refused.code is Refusal.NOT_AUTHORIZED
