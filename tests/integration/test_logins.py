"""Users, passwords and proofs against two workers: raw sockets and real clients."""

import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from robustmq.mqtt.packets import V5, V311, Auth, Connack, Connect, Disconnect, Properties
from robustmq.mqtt.reasons import Reason
from robustmq.policy.passwords import METHODS, written
from tests.integration.homes import name_on
from tests.integration.supervised import Node, until
from tests.integration.wire_client import Client, Wire, serve
from tests.scram_client import ScramClient

PATIENCE: Final = 60
SCRIPT: Final = Path(__file__).parent / "js" / "scram.mjs"
KEPT: Final = [written(method, "pencil", b"a salt", 4_096) for method in METHODS]
# Made by mosquitto_passwd, for "pencil".
MOSQUITTO: Final = (
    "$7$101$rFNHqSstvcFG86Ac$HsntlXUke36lLf87FLhv4O1RgZ7tAVRcblyf4GLRr3mBdINiPnNuukIqNiwXMOpl"
    "K8LD0MpA1Cp2lJll73tnIw=="
)


def user(name: str, *passwords: str) -> str:
    return f'[[users]]\nusername = "{name}"\npassword = {[*passwords]}\n'


USERS: Final = user("alice", *KEPT) + user("mo", MOSQUITTO)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logins") / "data"


@pytest.fixture(scope="module")
def node(data: Path) -> Iterator[Node]:
    yield from serve(data, config=USERS)


def connack(node: Node, client_id: str, name: str, password: bytes, version: int = V5) -> int:
    with Wire(node, version) as wire:
        wire.send(Connect(client_id, version, username=name, password=password))
        return wire.expect(Connack).reason


def comes(node: Node, client_id: str, name: str, may: bool = True) -> bool:
    return (connack(node, client_id, name, b"pencil") == Reason.SUCCESS) == may


@pytest.mark.parametrize("core", [0, 1])
@pytest.mark.parametrize("version", [V311, V5])
def test_passwords(node: Node, core: int, version: int) -> None:
    client_id = name_on(core, "p")
    for name, password, reason in (
        ("alice", b"pencil", Reason.SUCCESS),
        ("alice", b"pencils", Reason.BAD_USER_NAME_OR_PASSWORD),
        ("alice", b"pencil", Reason.SUCCESS),
        ("mo", b"pencil", Reason.SUCCESS),
        ("eve", b"pencil", Reason.BAD_USER_NAME_OR_PASSWORD),
    ):
        assert connack(node, client_id, name, password, version) == reason
    with Wire(node, version) as wire:
        wire.send(Connect(client_id, version))
        assert wire.expect(Connack).reason == Reason.NOT_AUTHORIZED


@pytest.mark.parametrize("core", [0, 1])
@pytest.mark.parametrize("method", METHODS)
def test_a_proof_and_another_while_messages_flow(node: Node, core: int, method: str) -> None:
    client = ScramClient("alice", "pencil", method)

    def said(data: bytes) -> Properties:
        return Properties(authentication_method=method, authentication_data=data)

    with Wire(node) as wire:
        wire.send(Connect(name_on(core, "s"), V5, properties=said(client.first())))
        for kind in (Connack, Auth):
            challenge = wire.expect(Auth)
            assert challenge.reason == Reason.CONTINUE_AUTHENTICATION
            assert challenge.properties is not None
            final = client.final(challenge.properties.authentication_data or b"")
            wire.send(Auth(Reason.CONTINUE_AUTHENTICATION, said(final)))
            last = wire.receive()
            assert isinstance(last, kind)
            assert isinstance(last, (Connack, Auth))
            assert last.reason == Reason.SUCCESS
            assert last.properties is not None
            assert client.is_server(last.properties.authentication_data or b"")
            client = ScramClient("alice", "pencil", method)
            wire.send(Auth(Reason.REAUTHENTICATE, said(client.first())))
        challenge = wire.expect(Auth)
        wrong = ScramClient("alice", "pencils", method)
        wrong.first()
        assert challenge.properties is not None
        final = wrong.final(challenge.properties.authentication_data or b"")
        wire.send(Auth(Reason.CONTINUE_AUTHENTICATION, said(final)))
        assert wire.ending() == [Disconnect(Reason.NOT_AUTHORIZED)]
        assert wire.told == ["the user name or the password is wrong"]


@pytest.mark.parametrize(("password", "came"), [("pencil", "ok"), ("pencils", "refused 134")])
def test_mqttjs_proves_itself(node: Node, password: str, came: str) -> None:
    line = ["node", str(SCRIPT), str(node.address()[1]), name_on(1, "js"), "alice", password]
    done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stdout, done.stderr) == (f"{came}\n", "")


def test_mosquitto_pub_logs_in(node: Node) -> None:
    host, port = node.address()
    line = ["mosquitto_pub", "-h", host, "-p", str(port), "-t", "t", "-m", "x", "-u", "mo"]
    for password, status in (("pencil", 0), ("pencils", 4)):
        command = [*line, "-P", password]
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
        assert done.returncode == status, done


def test_users_change_without_a_restart(node: Node, data: Path) -> None:
    settings = data.with_suffix(".toml")
    stays = Wire(node)
    stays.send(Connect("stays", V5, username="mo", password=b"pencil"))
    assert stays.expect(Connack).reason == Reason.SUCCESS
    try:
        settings.write_text(user("alice", *KEPT) + user("new", KEPT[0]), encoding="utf-8")
        node.process.send_signal(signal.SIGHUP)
        for core in (0, 1):
            client_id = name_on(core, "r")
            came = partial(comes, node, client_id)
            until(partial(came, "new"), "the new user may come")
            until(partial(came, "mo", False), "the old user may not")
        assert node.seen("configuration reloaded")[-1]["applied"] == ["users"]
        with Wire(node) as other:
            other.send(Connect("stays2", V5, username="alice", password=b"pencil"))
            assert other.expect(Connack).reason == Reason.SUCCESS
    finally:
        stays.close()
        settings.write_text(USERS, encoding="utf-8")
        node.process.send_signal(signal.SIGHUP)
        until(partial(comes, node, "mo", "mo"), "the old user may come again")


def test_without_users_nobody_is_asked(tmp_path: Path) -> None:
    for node in serve(tmp_path / "data"):
        with Client(node, "c") as client:
            assert client.connack.reason == Reason.SUCCESS
        assert connack(node, "d", "any", b"thing") == Reason.SUCCESS
