"""The server's side of SCRAM: the RFC's exchange, and everything that is no such exchange."""

from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmq.policy.passwords import METHODS, Verifier, verifier, written
from robustmq.policy.scram import MESSAGE_BYTES, ScramError, ScramServer
from tests.scram_client import ScramClient

SALT = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
KEPT = {method: verifier(written(method, "pencil", SALT)) for method in METHODS}
QUICK = {method: verifier(written(method, "pencil", SALT, 1)) for method in METHODS}


def server(method: str = "SCRAM-SHA-256") -> ScramServer:
    return ScramServer(lambda _: QUICK[method], "server")


def test_the_exchange_of_the_rfc() -> None:
    """RFC 7677 3."""
    names: list[str] = []

    def find(name: str) -> Verifier:
        names.append(name)
        return KEPT["SCRAM-SHA-256"]

    scram = ScramServer(find, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    assert scram.first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    last = scram.final(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert last == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert names == [scram.username] == ["user"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("header", ["n,,", "y,,", "n,a=user,"])
def test_who_knows_the_password_is_believed(method: str, header: str) -> None:
    client, scram = ScramClient("user", "pencil", method), server(method)
    last = scram.final(client.final(scram.first(client.first(header))))
    assert client.is_server(last)


@pytest.mark.parametrize("method", METHODS)
def test_who_does_not_is_not(method: str) -> None:
    client, scram = ScramClient("user", "pencils", method), server(method)
    with pytest.raises(ScramError, match="wrong") as error:
        scram.final(client.final(scram.first(client.first())))
    assert error.value.wrong


def test_a_client_may_write_its_part_of_the_nonce_twice_and_nothing_else() -> None:
    client, scram = ScramClient("user", "pencil", nonce="mine"), server()
    assert client.is_server(scram.final(client.final(scram.first(client.first()), "mine")))
    client, scram = ScramClient("user", "pencil", nonce="mine"), server()
    with pytest.raises(ScramError, match="another exchange"):
        scram.final(client.final(scram.first(client.first()), "min"))


def test_a_name_may_hold_what_separates() -> None:
    scram = server()
    scram.first(b"n,,n=a=2Cb=3Dc,r=x")
    assert scram.username == "a,b=c"


@pytest.mark.parametrize(
    "message",
    [
        b"", b"n", b"n,,", b"x,,n=a,r=b", b"p=tls-exporter,,n=a,r=b", b"n,a=other,n=a,r=b",
        b"n,b=a,n=a,r=b", b"n,,r=b,n=a", b"n,,n=a", b"n,,n=a,r=", b"n,,n=,r=b", b"n,,n=a=2X,r=b",
        b"n,,m=x,n=a,r=b", b"n,,n=a,n=b,r=c", b"\xff,,n=a,r=b", b"n,,n=a,r=" + bytes(MESSAGE_BYTES),
    ],
)  # fmt: skip
def test_first_messages_that_are_none(message: bytes) -> None:
    with pytest.raises(ScramError) as error:
        server().first(message)
    assert not error.value.wrong


@pytest.mark.parametrize(
    "message",
    [
        b"c=biws,r=clientserver,p=YQ==", b"c=biws,r=client,p=YQ==", b"c=eSws,r=clientserver,p=YQ==",
        b"c=biws,r=clientserver", b"c=!,r=clientserver,p=YQ==", b"c=biws,r=clientserver,p=Y",
        b"", b"\xff", b"c=biws,r=clientserver,p=" + b"A" * 43 + b"=",
    ],
)  # fmt: skip
def test_final_messages_that_prove_nothing(message: bytes) -> None:
    scram = server()
    scram.first(b"n,,n=user,r=client")
    with pytest.raises(ScramError):
        scram.final(message)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_nothing_else_is_ever_raised(first: bytes, final: bytes) -> None:
    scram = server()
    for take, message in ((scram.first, first), (scram.final, final)):
        try:
            take(message)
        except ScramError:
            if not scram.is_begun:
                scram.first(b"n,,n=user,r=client")
