"""TLS without a socket: a client's half of OpenSSL against the layer."""

import contextlib
import ssl
from pathlib import Path

import pytest

from robustmq.net.certificates import Certificates
from robustmq.net.layer import Broken, Facts
from robustmq.net.tls import TlsLayer
from robustmq.settings.tls import MqttTls
from tests import authority

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority.made(tmp_path_factory.mktemp("certificates"))


def certificates(directory: Path, **more: object) -> Certificates:
    return Certificates(
        MqttTls(
            tls_cert=(str(directory / "server.pem"),),
            tls_key=(str(directory / "server.key"),),
            **more,  # type: ignore[arg-type]
        )
    )


class Peer:
    """A client and the layer, and what each has got of the other's plain bytes."""

    def __init__(
        self, layer: TlsLayer, directory: Path, version: ssl.TLSVersion, identity: str = ""
    ) -> None:
        tls = ssl.create_default_context(cafile=str(directory / "ca.pem"))
        tls.minimum_version = tls.maximum_version = version
        if identity:
            tls.load_cert_chain(directory / f"{identity}.pem", directory / f"{identity}.key")
        self.layer = layer
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = tls.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.heard = b""
        self.said = b""

    def exchange(self, step: int = 1 << 20) -> None:
        """Carry bytes both ways until nobody has anything to say, in pieces of `step`."""
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
            with contextlib.suppress(ssl.SSLWantReadError):
                while data := self.tls.read(65_536):
                    self.heard += data
            going = self.outgoing.read()
            for start in range(0, len(going), step):
                self.said += self.layer.receive(going[start : start + step])
            coming = self.layer.outgoing()
            self.incoming.write(coming)
            if not going and not coming:
                return


@pytest.fixture(params=VERSIONS)
def peer(request: pytest.FixtureRequest, directory: Path) -> Peer:
    return Peer(TlsLayer(certificates(directory).context), directory, request.param)


@pytest.mark.parametrize("step", [1, 1000])
def test_bytes_both_ways_in_any_pieces(peer: Peer, step: int) -> None:
    states = [peer.layer.is_open]
    peer.exchange(step)
    assert [*states, peer.layer.is_open] == [False, True]
    for size in (1, 16_384, 16_385, 100_000):
        payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
        peer.tls.write(payload)
        peer.said = peer.heard = b""
        peer.exchange(max(step, 100))
        assert peer.said == payload
        peer.incoming.write(peer.layer.send(payload))
        peer.exchange()
        assert peer.heard == payload


def test_plain_bytes_are_no_handshake(peer: Peer) -> None:
    with pytest.raises(Broken, match="no TLS handshake"):
        peer.layer.receive(b"\x10\x10\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x03abc")
    assert not peer.layer.is_open
    assert peer.layer.close() == b""


def test_a_record_that_was_changed_ends_the_connection(peer: Peer) -> None:
    peer.exchange()
    peer.tls.write(b"hello")
    record = bytearray(peer.outgoing.read())
    record[-1] ^= 1
    with pytest.raises(Broken, match="a TLS record is wrong"):
        peer.layer.receive(bytes(record))
    # A fatal alert says so.
    assert peer.layer.outgoing()


def test_the_peers_end_is_noticed_and_answered(peer: Peer) -> None:
    peer.exchange()
    peer.tls.write(b"last")
    with contextlib.suppress(ssl.SSLError):
        peer.tls.unwrap()
    assert peer.layer.receive(peer.outgoing.read()) == b"last"
    assert peer.layer.has_ended
    peer.incoming.write(peer.layer.close())
    peer.tls.unwrap()


@pytest.mark.parametrize(
    ("source", "user"),
    [
        ("common_name", "alice"),
        ("dns", "alice.example"),
        ("email", "alice@example.com"),
        ("uri", "urn:device:alice"),
        ("none", None),
    ],
)
def test_a_certificate_names_its_user(directory: Path, source: str, user: str | None) -> None:
    made = certificates(directory, verify="required", ca_file=str(directory / "ca.pem"))
    peer = Peer(TlsLayer(made.context, source), directory, VERSIONS[1], "client")
    peer.exchange()
    facts = Facts()
    peer.layer.tell(facts)
    assert facts.certified == user


def test_nobody_is_certified_without_a_certificate(directory: Path) -> None:
    made = certificates(directory, verify="optional", ca_file=str(directory / "ca.pem"))
    peer = Peer(TlsLayer(made.context, "common_name"), directory, VERSIONS[1])
    peer.exchange()
    facts = Facts()
    peer.layer.tell(facts)
    assert facts.certified is None


@pytest.mark.parametrize(
    ("identity", "verify", "why"),
    [("stranger", "optional", "self-signed"), ("revoked", "optional", "revoked")],
)
def test_a_certificate_that_is_not_trusted(
    directory: Path, identity: str, verify: str, why: str
) -> None:
    trust = {name: str(directory / f"{name}.pem") for name in ("ca", "crl")}
    made = certificates(directory, verify=verify, ca_file=trust["ca"], crl_file=trust["crl"])
    peer = Peer(TlsLayer(made.context), directory, VERSIONS[1], identity)
    with pytest.raises(Broken, match=f"the peer's certificate is refused: .*{why}"):
        peer.exchange()
