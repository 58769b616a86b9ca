"""The rules of access on a node of two workers: what clients are told, and new rules by SIGHUP."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustmq.mqtt.packets import V5, V311, Connack, Connect, Properties, Puback, Publish, Will
from robustmq.mqtt.reasons import Reason
from tests.integration.homes import name_on
from tests.integration.supervised import Node, until
from tests.integration.wire_client import Client, Wire, serve

RULES = """
[[acl]]
permission = "Deny"
action = "Publish"
topic = "read/#"
name = "only read"

[[acl]]
permission = "Deny"
action = "Retain"
topic = "now/#"

[[acl]]
permission = "Deny"
action = "Subscribe"
topic = "secret/#"

[[acl]]
permission = "Allow"
topic = "own/${clientid}/#"

[[acl]]
permission = "Deny"
topic = "own/#"
"""
MORE = '[[acl]]\npermission = "Deny"\nresource_name = "{}"\ntopic = "later/#"\n'
FAILURE = 0x80
LASTING = Properties(session_expiry_interval=600)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("access") / "data"


@pytest.fixture(scope="module")
def node(data: Path) -> Iterator[Node]:
    yield from serve(data, config=RULES)


@pytest.mark.parametrize("core", [0, 1])
@pytest.mark.parametrize("qos", [1, 2])
def test_a_publish_is_refused_and_goes_nowhere(node: Node, core: int, qos: int) -> None:
    with Client(node, name_on(core, "pub")) as client, Client(node, "all") as hears:
        hears.subscribe("read/#", 2)
        assert client.publish("read/x", b"", qos) == Reason.NOT_AUTHORIZED
        assert client.publish("read/x", b"", qos, retain=True) == Reason.NOT_AUTHORIZED
        client.publish("read/x")
        assert client.publish("now/x", b"", qos, retain=True) == Reason.NOT_AUTHORIZED
        assert client.publish("now/x", b"", qos) == Reason.NO_MATCHING_SUBSCRIBERS
        assert hears.heard() == []


def test_the_rule_is_named(node: Node) -> None:
    with Client(node, "asks") as client:
        client.send(Publish(b"read/x", b"", 1, packet_id=7))
        assert client.expect(Puback).reason == Reason.NOT_AUTHORIZED
        why = "asks may not publish to read/x: a rule of [[acl]], only read, denies it"
        assert client.told == [why]


def test_mqtt_3_is_answered_as_it_can_be(node: Node) -> None:
    with Client(node, "three", V311) as client, Client(node, "all") as hears:
        hears.subscribe("read/#", 2)
        assert client.subscribe("secret/x", 1) == [FAILURE]
        assert client.publish("read/x", b"", 1) == 0
        assert client.publish("read/x", b"", 2) == 0
        assert hears.heard() == []


def test_subscriptions(node: Node) -> None:
    with Client(node, "sub") as client:
        no = [Reason.NOT_AUTHORIZED]
        for refused in ("secret/x", "#", "+/x", "$share/g/secret/#", "$exclusive/secret/x"):
            assert client.subscribe(refused) == no
        assert client.subscribe("own/sub/#", 1) == [1]
        assert client.subscribe("own/other/#", 1) == no
        assert client.subscribe("own/+/x", 1) == no


def test_a_will_that_may_not_be_published_is_refused_with_its_client(node: Node) -> None:
    for will, reason in (
        (Will(b"read/x", b""), Reason.NOT_AUTHORIZED),
        (Will(b"now/x", b"", retain=True), Reason.NOT_AUTHORIZED),
        (Will(b"now/x", b""), Reason.SUCCESS),
    ):
        with Wire(node) as wire:
            wire.send(Connect("will", V5, will=will))
            assert wire.expect(Connack).reason == reason


def test_new_rules_hold_for_who_is_there(node: Node, data: Path) -> None:
    """Routes that were decided, and subscriptions that were granted, online and offline."""
    settings = data.with_suffix(".toml")
    names = [name_on(core, "r") for core in (0, 1)]
    hears = Client(node, "hears")
    hears.subscribe("later/#", 1)
    clients = [Client(node, name, properties=LASTING) for name in names]
    for client in clients:
        assert client.subscribe("later/x", 1) == [1]
        assert client.publish("later/route", b"", 1) == 0
    away = [Client(node, name_on(core, "away"), properties=LASTING) for core in (0, 1)]
    for client in away:
        client.subscribe("later/x", 1)
        client.disconnect()
    known = node.sum("mqtt_subscriptions")
    try:
        more = "".join(MORE.format(pattern) for pattern in ("r*", "away*"))
        settings.write_text(more + RULES, encoding="utf-8")
        node.send(signal.SIGHUP)
        until(lambda: node.sum("mqtt_subscriptions_revoked_total") == 4, "subscriptions have ended")
        assert node.sum("mqtt_subscriptions") == known - 4
        assert node.seen("configuration reloaded")[-1]["applied"] == ["acl"]
        for client in clients:
            assert client.publish("later/route", b"", 1) == Reason.NOT_AUTHORIZED
            assert client.publish("own/x", b"", 1) == Reason.NOT_AUTHORIZED
        hears.heard()
        assert hears.publish("later/x", b"", 1) == 0
        assert [client.heard() for client in clients] == [[], []]
    finally:
        settings.write_text(RULES, encoding="utf-8")
        node.send(signal.SIGHUP)
    for client in clients:
        until(lambda: client.publish("later/route", b"", 1) == 0, "the old rules hold")  # noqa: B023
        client.disconnect()
    hears.close()
