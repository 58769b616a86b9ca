"""Two cores that meet: who knows the secret is let in, and nobody else."""

import msgspec
import pytest

from robustmq.errors import ProtocolError
from robustmq.net.peer_handshake import (
    NONCE_BYTES,
    PREAMBLE_BYTES,
    STREAM_BYTES,
    VERSION,
    Handshake,
    Hello,
    Life,
    preamble,
    refusal,
    wanted,
)
from robustmq.net.peer_records import Fault, Kind, Record

SECRET = b"what the nodes of a cluster know"


def hello(node: int, to: int, *, nonce: int = 0, version: int = VERSION) -> Hello:
    life = Life(b"boot", 3, bytes(STREAM_BYTES))
    return Hello(version, "c", node, 0, 5, life, to, 1, 6, bytes([nonce]) * NONCE_BYTES)


def pair(acceptors: bytes = SECRET) -> tuple[Handshake, Handshake]:
    return Handshake(SECRET, acceptor=False), Handshake(acceptors, acceptor=True)


def greet(dialer: Handshake, acceptor: Handshake, nonce: int = 1) -> None:
    assert acceptor.read_hello(dialer.hello(hello(1, 2))) == hello(1, 2)
    assert dialer.read_hello(acceptor.hello(hello(2, 1, nonce=nonce))) == hello(2, 1, nonce=nonce)


@pytest.mark.parametrize("secret", [SECRET, b""])
def test_two_that_know_the_secret_meet(secret: bytes) -> None:
    dialer, acceptor = Handshake(secret, acceptor=False), Handshake(secret, acceptor=True)
    greet(dialer, acceptor)
    assert acceptor.read_proof(dialer.proof(41)) == 41
    assert dialer.read_welcome(acceptor.welcome(42)) == 42


def test_an_acceptor_that_does_not_know_the_secret_is_found_out() -> None:
    with pytest.raises(ProtocolError, match="does not know the secret") as caught:
        greet(*pair(b"another secret of the same length"))
    assert caught.value.reason == Fault.STRANGER


def test_a_dialer_that_does_not_know_the_secret_is_found_out() -> None:
    dialer, acceptor = pair()
    greet(dialer, acceptor)
    stranger = Handshake(b"", acceptor=False)
    stranger.hello(hello(1, 2))
    for proof in (
        stranger.proof(0),
        Record(Kind.PROOF, 0, 0, b""),
        dialer.proof(0)._replace(acknowledged=1),
    ):
        with pytest.raises(ProtocolError, match="does not know the secret"):
            acceptor.read_proof(proof)


def test_a_proof_is_good_for_one_nonce_and_one_side() -> None:
    dialer, acceptor = pair()
    greet(dialer, acceptor)
    heard = dialer.proof(0)
    again = Handshake(SECRET, acceptor=True)
    greet(dialer, again, nonce=2)
    with pytest.raises(ProtocolError):
        again.read_proof(heard)
    mirrored = acceptor.hello(hello(2, 1)).body[:32]
    with pytest.raises(ProtocolError):
        acceptor.read_proof(Record(Kind.PROOF, 0, 0, mirrored))


def test_a_refusal_is_a_sentence_without_tricks() -> None:
    dialer, _ = pair()
    dialer.hello(hello(1, 2))
    with pytest.raises(ProtocolError, match=r"^go away$") as caught:
        dialer.read_hello(refusal("go\x1b away\n"))
    assert caught.value.reason == Fault.REFUSED
    with pytest.raises(ProtocolError) as caught:
        dialer.read_hello(Record(Kind.REFUSED, 0, 0, b"\xff" * 4_000))
    assert len(caught.value.detail) == 200


@pytest.mark.parametrize(
    "record",
    [
        Record(Kind.WELCOME, 0, 0, b""),
        Record(Kind.HELLO, 0, 0, b""),
        Record(Kind.HELLO, 0, 0, b"\xc1" * 99),
        Record(Kind.HELLO, 0, 0, b"\x91" * 4_000),
        Record(Kind.HELLO, 0, 0, msgspec.msgpack.encode(hello(1, 2, version=9))),
        Record(
            Kind.HELLO,
            0,
            0,
            msgspec.msgpack.encode(msgspec.structs.replace(hello(1, 2), nonce=b"")),
        ),
    ],
)
def test_what_is_no_hello_is_refused(record: Record) -> None:
    with pytest.raises(ProtocolError):
        Handshake(SECRET, acceptor=True).read_hello(record)


def test_a_preamble_names_the_core_that_is_wanted() -> None:
    words = preamble(63)
    assert len(words) == PREAMBLE_BYTES
    assert wanted(words + b"\x16\x03") == 63
    for length in range(PREAMBLE_BYTES):
        assert wanted(words[:length]) is None
    assert wanted(b"GET / HTTP/1.1") == -1
    assert wanted(words[:4] + b"\x09" + words[5:]) == -1
