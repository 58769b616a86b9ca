"""Keep alive and PINGREQ (parts 3.1.2.10, 3.12)."""

import time

from tests.conformance import raw
from tests.conformance.peer import Site
from tests.conformance.statements import keeps


@keeps(v31="3.1-7", v311="3.1.2-24 3.1.2-8", v5="3.1.2-22 3.1.2-8 3.2.2-22")
def test_a_silent_client_is_disconnected_and_leaves_its_will(site: Site) -> None:
    listener = site.client("listener")
    listener.subscribe(f"{site.topic}/#")
    began = time.monotonic()
    client = site.client(keep_alive=1, will=site.will("will"))
    assert raw.SERVER_KEEP_ALIVE not in client.connack.properties
    rest = client.rest()
    assert time.monotonic() - began > 1.2
    assert [one.code for one in rest] == ([0x8D] if site.version == 5 else [])
    assert listener.message().payload == b"gone"


@keeps(v311="3.1.2-24 3.12.4-1", v5="3.1.2-22 3.12.4-1")
def test_a_client_that_pings_is_not(site: Site) -> None:
    client = site.client(keep_alive=1)
    for _ in range(5):
        client.send(raw.PING)
        assert client.next(raw.PINGRESP).data == b""
        client.silence(0.4)


@keeps(v311="3.1.2-24", v5="3.1.2-22")
def test_any_packet_keeps_a_client_alive(site: Site) -> None:
    client = site.client(keep_alive=1)
    for _ in range(5):
        client.publish(site.topic, b"x", 0)
        client.silence(0.4)
    assert client.heard() == []


@keeps(v311="3.12.4-1", v5="3.12.4-1")
def test_every_ping_is_answered(site: Site) -> None:
    client = site.client()
    client.send(raw.PING * 50)
    for _ in range(50):
        assert client.next(raw.PINGRESP).data == b""


@keeps(v5="3.2.2-22")
def test_a_client_without_a_keep_alive_is_told_the_server_s(site: Site) -> None:
    client = site.client(keep_alive=0)
    assert client.connack.properties[raw.SERVER_KEEP_ALIVE] == [3600]
