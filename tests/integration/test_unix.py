"""MQTT over a Unix socket: one file for all workers, from the first client to the last."""

import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.homes import PLACES, name_on
from tests.integration.supervised import PATIENCE_SECONDS, Node
from tests.integration.wire_client import Client, serve


def setting(path: Path) -> str:
    return f'mqtt_runtime.server.unix_path="{path}"'


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("unix")
    yield from serve(directory / "data", setting(directory / "mqtt.sock"))


class UnixClient(Client):
    """A client over the Unix socket."""

    def opened(self, node: Node, receive_buffer: int) -> socket.socket:
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        opened.settimeout(PATIENCE_SECONDS)
        opened.connect(node.facts["mqtt_unix"])
        return opened


@pytest.mark.parametrize(("publisher", "subscriber"), PLACES)
def test_messages_come_and_go(node: Node, publisher: int, subscriber: int) -> None:
    with (
        UnixClient(node, name_on(publisher, "p")) as sender,
        UnixClient(node, name_on(subscriber, "s")) as receiver,
        Client(node, name_on(subscriber, "t")) as other,
    ):
        topic = f"unix/{publisher}{subscriber}"
        for client in (receiver, other):
            client.subscribe(topic, 2)
        for qos in (0, 1, 2):
            sender.publish(topic, b"%d" % qos, qos)
        for client in (receiver, other):
            assert client.payloads(3) == [b"0", b"1", b"2"]


def test_many_come_at_once(node: Node) -> None:
    clients = [UnixClient(node, name_on(number % 2, "m")) for number in range(60)]
    for client in clients:
        client.ping()
        client.close()


def test_its_permissions_are_those_of_the_configuration(node: Node) -> None:
    mode = Path(node.facts["mqtt_unix"]).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660


def test_the_file_goes_with_the_server_and_comes_again(tmp_path: Path) -> None:
    path = tmp_path / "mqtt.sock"
    lines = [setting(path), 'mqtt_runtime.server.unix_mode="0600"']
    for signum in (signal.SIGKILL, signal.SIGTERM):
        # The second one finds the file that the first one has left.
        node = Node(tmp_path / "data", module="robustmq.cli.supervisor", settings=lines)
        try:
            node.ready()
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            with UnixClient(node, "x") as client:
                client.ping()
            os.kill(node.process.pid, signum)
            node.wait()
        finally:
            node.close()
    assert not path.exists()


def test_what_cannot_be_listened_on_is_said(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    taken = tmp_path / "taken"
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    holder.bind(str(taken))
    holder.listen()
    for path, why in (
        (file, "there is a file that is no socket"),
        (taken, "it is in use"),
        (tmp_path / ("x" * 120), "more than 107 bytes"),
        (tmp_path / "none" / "x", "No such file or directory"),
    ):
        node = Node(tmp_path / "data", module="robustmq.cli.supervisor", settings=[setting(path)])
        try:
            assert node.wait() != 0
            assert why in node.errors()
            assert "Traceback" not in node.errors()
        finally:
            node.close()
    assert file.read_text() == "mine"
    holder.close()
