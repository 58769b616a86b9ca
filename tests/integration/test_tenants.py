"""Tenants on two workers: same names and topics, and nothing of the others; over a restart too."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from robustmq.mqtt.packets import V5, V311, Connack, Connect, Disconnect, Properties, Will
from robustmq.mqtt.reasons import Reason
from robustmq.policy.passwords import METHODS, written
from tests.integration.homes import PLACES, name_on
from tests.integration.supervised import Node
from tests.integration.wire_client import Client, Wire, serve

PATIENCE: Final = 60
KEPT: Final = [written(method, "pencil", b"salt", 100) for method in METHODS]
CONFIG: Final = f"""
[mqtt_runtime.auth]
tenants = ["acme", "beta"]
secret_free_login = true

[[users]]
username = "alice"
tenant = "acme"
password = {KEPT}
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    yield from serve(tmp_path_factory.mktemp("tenants") / "data", config=CONFIG)


def of(tenant: str, expiry: int | None = None) -> Properties:
    return Properties(
        user_properties=(("tenant", tenant),) if tenant else (), session_expiry_interval=expiry
    )


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_the_same_names_in_three_tenants(node: Node, places: tuple[int, int], qos: int) -> None:
    publisher, subscriber = (name_on(core, "t") for core in places)
    topic = f"{publisher}/{qos}"
    tenants = ("default", "acme", "beta")
    ears = [Client(node, subscriber, properties=of(tenant)) for tenant in tenants]
    mouths = [Client(node, publisher, properties=of(tenant)) for tenant in tenants]
    try:
        for ear in ears:
            assert ear.subscribe("#", qos) == [qos]
            assert ear.subscribe(f"$share/g/{topic}", qos) == [qos]
        for tenant, mouth in zip(tenants, mouths, strict=True):
            mouth.publish(topic, tenant.encode(), qos, retain=True)
        for tenant, ear in zip(tenants, ears, strict=True):
            heard = ear.messages(2)
            assert {(each.topic, each.payload) for each in heard} == {
                (topic.encode(), tenant.encode())
            }
        for tenant, ear in zip(tenants, ears, strict=True):
            assert ear.subscribe("#", qos) == [qos]
            assert ear.message().payload == tenant.encode()
            assert ear.heard() == []
    finally:
        for mouth in mouths:
            mouth.publish(topic, b"", 1, retain=True)
        for client in (*ears, *mouths):
            client.close()


def test_wills_and_delayed_messages_stay_within(node: Node) -> None:
    with (
        Client(node, name_on(0, "ear")) as stranger,
        Client(node, name_on(1, "ear"), properties=of("acme")) as ear,
    ):
        stranger.subscribe("#", 1)
        ear.subscribe("#", 1)
        dying = Client(node, name_on(0, "w"), properties=of("acme"), will=Will(b"will", b"gone", 1))
        dying.publish("$delayed/1/late", b"later", 1)
        dying.close()
        assert [(each.topic, each.payload) for each in ear.messages(2)] == [
            (b"will", b"gone"), (b"late", b"later"),
        ]  # fmt: skip
        assert stranger.heard() == []


def test_a_durable_session_is_its_tenants_over_a_restart(tmp_path: Path) -> None:
    name = name_on(1, "d")
    for node in serve(tmp_path / "data", config=CONFIG):
        for tenant in ("acme", "beta"):
            with Client(node, name, clean=False, properties=of(tenant, 600)) as ear:
                ear.subscribe("a/+", 1)
        with Client(node, name_on(0, "p"), properties=of("beta")) as mouth:
            mouth.publish("a/b", b"beta", 1)
    for node in serve(tmp_path / "data", config=CONFIG):
        with Client(node, name, clean=False, properties=of("acme", 600)) as ear:
            assert ear.connack.session_present
            assert ear.heard() == []
        with Client(node, name, clean=False, properties=of("", 600)) as ear:
            assert not ear.connack.session_present
        with Client(node, name, clean=False, properties=of("beta", 600)) as ear:
            assert ear.connack.session_present
            message = ear.message()
            assert (message.topic, message.payload) == (b"a/b", b"beta")


def test_users_are_those_of_a_tenant(node: Node) -> None:
    for username, password, reason in (
        ("acme@alice", b"pencil", Reason.SUCCESS),
        ("acme@alice", b"pencils", Reason.BAD_USER_NAME_OR_PASSWORD),
        ("alice", b"pencil", Reason.BAD_USER_NAME_OR_PASSWORD),
        ("beta@alice", b"pencil", Reason.BAD_USER_NAME_OR_PASSWORD),
    ):
        with Wire(node, V311) as wire:
            wire.send(Connect("u", V311, username=username, password=password))
            assert wire.expect(Connack).reason == reason
    with Wire(node) as wire:
        wire.send(Connect("u", V5, properties=of("gamma")))
        assert wire.expect(Connack).reason == Reason.NOT_AUTHORIZED
        assert wire.told == ["there is no tenant gamma"]


def test_nobody_writes_the_name_of_a_tenant_by_hand(node: Node) -> None:
    with Client(node, "m") as client:
        assert client.subscribe("$\1acme\1/#") == [Reason.TOPIC_FILTER_INVALID]
        assert client.subscribe("$share/g/$\1acme\1/#") == [Reason.TOPIC_FILTER_INVALID]
        for topic in ("$\1acme\1/a", "$delayed/0/$\1acme\1/a"):
            assert client.publish(topic, b"x", 1) == Reason.TOPIC_NAME_INVALID
            assert client.publish(topic, b"x", 2, retain=True) == Reason.TOPIC_NAME_INVALID


def test_mosquitto_in_a_tenant(node: Node) -> None:
    host, port = node.address()
    line = ["-h", host, "-p", str(port), "-t", "mo"]
    with Client(node, "stranger") as stranger:
        stranger.subscribe("#")
        for tenant in ("acme", "beta"):
            command = ["mosquitto_pub", *line, "-i", f"{tenant}@m", "-m", tenant, "-r", "-q", "1"]
            subprocess.run(command, timeout=PATIENCE, check=True)
        heard = subprocess.run(
            ["mosquitto_sub", *line, "-i", "acme@s", "-C", "1", "-W", str(PATIENCE), "-v"],
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
        assert heard.stdout == b"mo acme\n"
        assert stranger.heard() == []


def test_a_ban_is_that_of_a_tenant(node: Node) -> None:
    path = "/api/cluster/blacklist"
    tenants = ("default", "acme", "beta")
    name = name_on(1, "banned")
    for tenant, concerned in (("acme", {"acme"}), ("*", set(tenants))):
        ban = {"name": "one", "blacklist_type": "ClientId", "resource_name": name, "tenant": tenant}
        with Client(node, name, properties=of("acme")) as connected:
            assert node.post(f"{path}/create", ban)[0] == 200
            assert connected.ending() == [Disconnect(Reason.ADMINISTRATIVE_ACTION)]
        banned = set()
        for each in tenants:
            with Client(node, name, properties=of(each)) as client:
                if client.connack.reason == Reason.BANNED:
                    banned.add(each)
        assert banned == concerned
        assert node.post(f"{path}/delete", {"name": "one"})[0] == 200
