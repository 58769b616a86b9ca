"""The TLS listener: versions, certificates both ways, renewal, resumption, and what is refused."""

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from robustmq.mqtt.packets import V311, Connect
from tests import authority
from tests.integration.homes import WORKERS, name_on
from tests.integration.secure import VERSIONS, TlsClient, TlsWire, connect, context, settings
from tests.integration.supervised import Node, until
from tests.integration.wire_client import Wire, serve

PATIENCE: Final = 60
REFUSED: Final = "mqtt_connections_refused_total"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority.made(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def node(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Two certificates, clients' certificates when they have one, and short patience."""
    files = {name: str(directory / f"{name}.pem") for name in ("ca", "crl")}
    yield from serve(
        tmp_path_factory.mktemp("tls") / "data",
        *settings(
            directory,
            *("server", "other"),
            verify="optional",
            ca_file=files["ca"],
            crl_file=files["crl"],
            user_from="common_name",
        ),
        "mqtt_runtime.server.handshake_timeout_ms=2000",
        "mqtt_runtime.server.refusal_log_interval_ms=0",
    )


def refused(node: Node) -> float:
    return sum(node.sample(f'{REFUSED}{{core="{core}"}}') for core in range(WORKERS))


def reasons(node: Node) -> set[str]:
    return {event["reason"] for event in node.seen("connection refused")}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("identity", ["", "client"])
def test_both_versions_with_and_without_a_certificate(
    node: Node, directory: Path, version: ssl.TLSVersion, identity: str
) -> None:
    tls = context(directory, identity, version=version)
    with TlsClient(node, tls, name_on(0, "v")) as one, TlsClient(node, tls, name_on(1, "v")) as two:
        two.subscribe("tls/v", 1)
        assert one.publish("tls/v", b"hello", 1) == 0
        assert two.message().payload == b"hello"


def test_the_server_name_chooses_the_certificate(node: Node, directory: Path) -> None:
    tls = context(directory)
    for name in ("localhost", "other.example", "any.wild.example"):
        connect(node, tls, name=name).close()
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(node, tls, name="unknown.example")


@pytest.mark.parametrize(("identity", "why"), [("revoked", "revoked"), ("stranger", "self-signed")])
def test_a_certificate_that_is_not_trusted_is_refused(
    node: Node, directory: Path, identity: str, why: str
) -> None:
    with contextlib.suppress(OSError), TlsWire(node, context(directory, identity)) as wire:
        wire.send(Connect("nobody", V311))
        assert wire.ending() == []
    until(lambda: any(why in reason for reason in reasons(node)), "it is logged")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_is_resumed_by_whichever_worker(
    node: Node, directory: Path, version: ssl.TLSVersion
) -> None:
    tls = context(directory, "client", version=version)
    with TlsClient(node, tls, name_on(0, "r")) as client:
        client.ping()
        assert isinstance(client.socket, ssl.SSLSocket)
        session = client.socket.session
    before = refused(node)
    for _ in range(20):
        again = connect(node, tls, session=session)
        assert again.session_reused
        again.close()
    assert refused(node) == before


def test_who_does_not_speak_tls_is_closed_at_once(node: Node) -> None:
    before = refused(node)
    with socket.create_connection(node.address("mqtt_tls"), timeout=PATIENCE) as plain:
        plain.sendall(b"\x10\x10\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x03abc")
        answer = plain.recv(100)
        # A fatal alert, and the end.
        assert answer[:1] in {b"\x15", b""}
        assert plain.recv(100) == b""
    until(lambda: refused(node) == before + 1, "it is counted")


def test_tls_on_the_plain_port_is_closed_at_once(node: Node, directory: Path) -> None:
    before = refused(node)
    tls = context(directory)
    with (
        socket.create_connection(node.address(), timeout=PATIENCE) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        tls.wrap_socket(plain, server_hostname="localhost")
    until(lambda: refused(node) == before + 1, "it is counted")
    until(lambda: "it speaks TLS to a plain port" in reasons(node), "it is logged")


@pytest.mark.parametrize("beginning", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_a_handshake_takes_no_longer_than_it_may(node: Node, beginning: bytes) -> None:
    before = refused(node)
    with socket.create_connection(node.address("mqtt_tls"), timeout=PATIENCE) as silent:
        silent.sendall(beginning)
        with contextlib.suppress(ConnectionError):
            assert silent.recv(100) == b""
    until(lambda: refused(node) == before + 1, "it is counted")


def test_garbage_harms_nobody(node: Node, directory: Path) -> None:
    tls = context(directory)
    with TlsClient(node, tls, name_on(0, "n")) as other:
        for number in range(40):
            with socket.create_connection(node.address("mqtt_tls"), timeout=PATIENCE) as wild:
                wild.sendall(b"\x16\x03\x01" + bytes((number * 7 + i) % 256 for i in range(600)))
        with TlsWire(node, tls) as wire:
            # Garbage between good records: the socket below, without its keys.
            raw = socket.socket(fileno=wire.socket.detach())
            raw.settimeout(PATIENCE)
            raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            while raw.recv(4_096):
                pass
            raw.close()
        other.ping()


@pytest.mark.parametrize("version", VERSIONS)
def test_paho(node: Node, directory: Path, version: ssl.TLSVersion) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2, name_on(1, "paho"))
    client.tls_set_context(context(directory, "client", version=version))
    heard: list[bytes] = []
    subscribed: list[int] = []
    client.on_message = lambda _client, _data, message: heard.append(bytes(message.payload))
    client.on_subscribe = lambda *_: subscribed.append(1)
    host, port = node.address("mqtt_tls")
    client.connect(host, port)
    client.loop_start()
    client.subscribe("paho/#", 2)
    until(lambda: subscribed, "SUBACK")
    for number in range(20):
        client.publish("paho/x", b"%d" % number, 2)
    until(lambda: len(heard) == 20, "all messages")
    assert heard == [b"%d" % number for number in range(20)]
    client.disconnect()
    client.loop_stop()


def test_mosquitto_clients(node: Node, directory: Path) -> None:
    host, port = node.address("mqtt_tls")
    common = ["-h", host, "-p", str(port), "--cafile", str(directory / "ca.pem")]
    common += ["--cert", str(directory / "client.pem"), "--key", str(directory / "client.key")]
    kept = ["-t", "mosquitto/x", "-q", "1"]
    published = subprocess.run(
        ["mosquitto_pub", *common, *kept, "-r", "-m", "hello"],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (published.returncode, published.stderr) == (0, b"")
    subscribed = subprocess.run(
        ["mosquitto_sub", *common, *kept, "-C", "1", "-W", str(PATIENCE)],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (subscribed.returncode, subscribed.stdout) == (0, b"hello\n")


def test_openssl_agrees_on_what_was_negotiated(node: Node, directory: Path) -> None:
    host, port = node.address("mqtt_tls")
    line = ["openssl", "s_client", "-connect", f"{host}:{port}"]
    line += ["-CAfile", str(directory / "ca.pem")]
    done = subprocess.run(
        [*line, "-verify_return_error"],
        input=b"",
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    text = done.stdout.decode()
    assert "Verify return code: 0 (ok)" in text
    assert "Compression: NONE" in text
    old = subprocess.run(
        [*line, "-tls1_1"], input=b"", capture_output=True, timeout=PATIENCE, check=False
    )
    assert old.returncode != 0


def copied(directory: Path, target: Path, name: str = "server") -> None:
    """Put a pair of files in the place of the server's, in one moment each."""
    for kind in ("key", "pem"):
        part = target / f"part.{kind}"
        shutil.copy(directory / f"{name}.{kind}", part)
        part.replace(target / f"server.{kind}")


def shown(node: Node) -> bytes:
    """Return the certificate that the server shows."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    with connect(node, trusting) as client:
        return client.getpeercert(binary_form=True) or b""


def test_certificates_are_renewed_without_a_connection_lost(
    directory: Path, tmp_path: Path
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    copied(directory, files)
    interval = "mqtt_runtime.tls.check_interval_ms=400"
    begun = Node(
        tmp_path / "data",
        module="robustmq.cli.supervisor",
        settings=[*settings(files), interval],
    )
    tls = context(directory)
    try:
        node = begun.ready()
        with TlsClient(node, tls, name_on(0, "c")) as one, TlsClient(node, tls, "x") as two:
            session = two.socket.session if isinstance(two.socket, ssl.SSLSocket) else None
            first = shown(node)
            copied(directory, files, "other")
            until(lambda: len(node.seen("certificates renewed")) == WORKERS, "both have seen it")
            assert len({shown(node) for _ in range(10)} | {first}) == 2
            # Tickets from before are still good.
            again = connect(node, tls, name="other.example", session=session)
            assert again.session_reused
            again.close()
            # What cannot be used changes nothing, and is said once by each.
            copied(directory, files, "expired")
            event = "the certificates were not renewed"
            until(lambda: len(node.seen(event)) == WORKERS, "both say so")
            assert "has expired on" in node.seen(event)[0]["reason"]
            node.send(signal.SIGHUP)
            one.ping()
            two.ping()
            assert first not in {shown(node) for _ in range(10)}
            assert len(node.seen(event)) == WORKERS
    finally:
        begun.close()


def broken(directory: Path, files: Path, what: str) -> list[str]:
    """Return the settings of a start that is refused."""
    copied(directory, files, "expired" if what == "has expired" else "server")
    if what == "can be read by others":
        (files / "server.key").chmod(0o644)
    elif what == "is not that of":
        shutil.copy(directory / "other.key", files / "server.key")
    elif what == "cannot be read":
        (files / "server.pem").unlink()
    elif what == "holds no certificate":
        (files / "server.pem").write_text("nothing")
    elif what == "holds no unencrypted private key":
        (files / "server.key").write_text("nothing")
    if what == "there is no ca_file":
        return settings(files, verify="required")
    return settings(files)


@pytest.mark.parametrize(
    "what",
    [
        "can be read by others",
        "has expired",
        "is not that of",
        "cannot be read",
        "holds no certificate",
        "holds no unencrypted private key",
        "there is no ca_file",
    ],
)
def test_the_server_does_not_start_with_what_is_wrong(
    directory: Path, tmp_path: Path, what: str
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    lines = broken(directory, files, what)
    node = Node(tmp_path / "data", module="robustmq.cli.supervisor", settings=lines)
    try:
        assert node.wait() != 0
        assert what in node.errors()
        assert "Traceback" not in node.errors()
    finally:
        node.close()


def test_a_client_without_a_certificate_where_one_is_required(
    directory: Path, tmp_path: Path
) -> None:
    authority_file = str(directory / "ca.pem")
    lines = settings(directory, verify="required", ca_file=authority_file, min_version="1.3")
    node = Node(tmp_path / "data", module="robustmq.cli.supervisor", settings=lines)
    try:
        node.ready()
        with TlsClient(node, context(directory, "client"), name_on(0, "q")) as client:
            client.ping()
        with contextlib.suppress(OSError), TlsWire(node, context(directory)) as wire:
            wire.send(Connect("nobody", V311))
            assert wire.ending() == []
        with pytest.raises(OSError, match=r".+"):
            connect(node, context(directory, "client", version=VERSIONS[0]))
        with Wire(node, V311) as plain:
            plain.send(Connect("plain", V311))
            plain.receive()
    finally:
        node.close()


def test_handshakes_under_way_have_a_bound_and_tickets_outlive_a_worker(
    directory: Path, tmp_path: Path
) -> None:
    lines = [*settings(directory), "mqtt_runtime.tls.max_handshakes=2"]
    lines += ["mqtt_runtime.server.handshake_timeout_ms=60000"]
    node = Node(tmp_path / "data", module="robustmq.cli.supervisor", settings=lines)
    tls = context(directory)
    try:
        children = node.ready().children()
        with TlsClient(node, tls, name_on(0, "b")) as client:
            client.ping()
            assert isinstance(client.socket, ssl.SSLSocket)
            session = client.socket.session
        with contextlib.ExitStack() as stack:
            for _ in range(2 * WORKERS + 6):
                silent = socket.create_connection(node.address("mqtt_tls"), timeout=PATIENCE)
                stack.enter_context(silent)
            until(lambda: refused(node) >= 6, "no more than the bound are let in")
            until(lambda: "too many handshakes are under way" in reasons(node), "it is logged")
        for core in range(WORKERS):
            os.kill(children[f"worker {core}"], signal.SIGKILL)
        until(lambda: len(node.seen("process is back")) == WORKERS, "both are back")
        for _ in range(10):
            again = connect(node, tls, session=session)
            assert again.session_reused
            again.close()
    finally:
        node.close()
