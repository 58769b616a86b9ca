"""Extended authentication, as far as a server without users shows it (parts 3.15, 4.12)."""

from tests.conformance import raw
from tests.conformance.peer import Site
from tests.conformance.raw import V5
from tests.conformance.statements import keeps


@keeps(v5="4.12.0-1 4.12.0-4 3.1.4-2")
def test_a_method_that_is_not_supported_is_refused(site: Site) -> None:
    peer = site.peer()
    method = raw.block((raw.AUTHENTICATION_METHOD, "NO-SUCH-METHOD"))
    peer.send(raw.connect(V5, site.name(), properties=method), b"\xf0\0")
    assert peer.rejected(0x8C)


@keeps(v5="4.12.0-6")
def test_without_a_method_the_server_speaks_of_none(site: Site) -> None:
    client = site.client(username="user", password=b"pass")
    assert raw.AUTHENTICATION_METHOD not in client.connack.properties
    assert raw.AUTHENTICATION_DATA not in client.connack.properties
    assert client.heard() == []


@keeps(v5="3.15.1-1 4.13.1-1")
def test_auth_with_wrong_flags_ends_the_connection(site: Site) -> None:
    for first_byte in (0xF1, 0xF2, 0xF8):
        client = site.client()
        client.send(raw.packet(first_byte))
        assert client.refused(0x81)


@keeps(v5="4.13.1-1 3.15.2-1")
def test_auth_that_was_not_agreed_on_ends_the_connection(site: Site) -> None:
    for body in (b"", b"\x18\0", b"\x19\0", b"\x01\0", b"\x80\0"):
        client = site.client()
        client.send(raw.packet(0xF0, body))
        assert client.refused(0x81, 0x82)
