"""The WebSocket layer: its handshake, its answers and its end (RFC 6455 4, 5; MQTT5 6)."""

import gc

import pytest
from websockets.server import ServerProtocol

from robustmq.net.layer import Broken, Facts
from robustmq.net.websocket import Terms, WebSocket
from tests.websocket import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    accept_of,
    frames,
    masked,
    request,
    split_head,
)

TERMS = Terms(path="/mqtt", origins=(), max_head=4_096, max_message=1 << 20)
LAST = 0x80 | CLOSE


def opened(terms: Terms = TERMS) -> WebSocket:
    layer = WebSocket(terms)
    assert layer.receive(request()) == b""
    assert layer.outgoing().startswith(b"HTTP/1.1 101 ")
    return layer


def refusal(data: bytes, terms: Terms = TERMS) -> tuple[int, dict[str, str], str]:
    layer = WebSocket(terms)
    with pytest.raises(Broken):
        layer.receive(data)
    assert not layer.is_open
    status, headers, body = split_head(layer.outgoing())
    assert headers["connection"] == "close"
    assert int(headers["content-length"]) == len(body)
    assert layer.close() == b""
    return status, dict(headers), body.decode()


def closed(layer: WebSocket, data: bytes) -> int:
    """Return the status code that the layer ends with, or 0."""
    try:
        layer.receive(data)
    except Broken:
        assert layer.has_ended
    *_, (first, payload) = frames(layer.outgoing())
    assert first == LAST
    assert (layer.close(), layer.send(b"x")) == (b"", b"")
    return int.from_bytes(payload[:2], "big")


def test_the_handshake_is_answered_and_told() -> None:
    layer = WebSocket(TERMS)
    data = request("/mqtt?tenant=a", Origin="https://example.com") + masked(b"CONNECT")
    assert layer.receive(data) == b"CONNECT"
    assert layer.is_open
    status, headers, rest = split_head(layer.outgoing())
    assert (status, rest) == (101, b"")
    assert headers["sec-websocket-accept"] == accept_of()
    assert headers["sec-websocket-protocol"] == "mqtt"
    assert (headers["upgrade"], headers["connection"]) == ("websocket", "Upgrade")
    facts = Facts(address="::1", listener="ws")
    layer.tell(facts)
    assert facts == Facts("::1", "ws", None, "/mqtt", "https://example.com")
    assert layer.outgoing() == b""


def test_the_handshake_may_come_byte_by_byte() -> None:
    layer = WebSocket(TERMS)
    stream = request() + masked(b"abc")
    given = b"".join(layer.receive(stream[at : at + 1]) for at in range(len(stream)))
    assert given == b"abc"
    assert layer.outgoing().startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [("mqtt", "mqtt"), ("mqttv3.1", "mqttv3.1"), ("x, mqttv3.1, mqtt", "mqtt")],
)
def test_a_subprotocol_is_chosen(offered: str, chosen: str) -> None:
    layer = WebSocket(TERMS)
    layer.receive(request(Sec_WebSocket_Protocol=offered))
    assert split_head(layer.outgoing())[1]["sec-websocket-protocol"] == chosen


def test_compression_is_not_negotiated() -> None:
    layer = WebSocket(TERMS)
    layer.receive(request(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits"))
    status, headers, _ = split_head(layer.outgoing())
    assert status == 101
    assert "sec-websocket-extensions" not in headers


REFUSED = {
    "no sub-protocol [MQTT-6.0.0-3]": (request(Sec_WebSocket_Protocol=None), 400),
    "another sub-protocol": (request(Sec_WebSocket_Protocol="chat"), 400),
    "the wrong path": (request("/"), 404),
    "no upgrade": (request(Upgrade=None, Connection="close"), 426),
    "another upgrade": (request(Upgrade="h2c"), 426),
    "no key": (request(Sec_WebSocket_Key=None), 400),
    "a short key": (request(Sec_WebSocket_Key="c2hvcnQ="), 400),
    "a key that is no text": (request(Sec_WebSocket_Key="\xff\xfe"), 400),
    "no version": (request(Sec_WebSocket_Version=None), 400),
    "an old version": (request(Sec_WebSocket_Version="8"), 400),
    "another method": (request(method="POST"), 405),
    "no HTTP": (b"SSH-2.0-OpenSSH_9\r\n\r\n", 400),
    "a body": (request(Content_Length="5") + b"hello", 400),
    "a bad header": (request().replace(b"Host: ", b"Ho st: "), 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_handshake_is_refused_in_a_sentence(name: str) -> None:
    data, expected = REFUSED[name]
    status, _, text = refusal(data)
    assert status == expected
    assert text.rstrip().endswith(".")


def test_what_is_not_http_is_ended_at_once_and_without_an_answer() -> None:
    for beginning in (b"\x10\x0c\0\x04MQTT", b"\x16\x03\x01"):
        layer = WebSocket(TERMS)
        with pytest.raises(Broken, match="not HTTP"):
            layer.receive(beginning)
        assert (layer.outgoing(), layer.close()) == (b"", b"")


def test_a_long_request_is_refused_before_it_is_whole() -> None:
    status, _, text = refusal(request(Cookie="c" * 4_096)[:-4])
    assert (status, "4096 bytes" in text) == (431, True)
    assert refusal(request(Cookie="c" * 4_096))[0] == 431
    layer = WebSocket(TERMS)
    layer.receive(request() + masked(bytes(8_192)))
    assert layer.is_open, "what stands behind the request is not counted"


def test_only_pages_of_the_origins_may_connect() -> None:
    terms = Terms("/mqtt", ("https://a.example", "https://b.example"), 4_096, 1 << 20)
    assert refusal(request(Origin="https://c.example"), terms)[0] == 403
    for origin in ("https://b.example", None):
        layer = WebSocket(terms)
        layer.receive(request(Origin=origin))
        assert layer.is_open


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 1_000_000])
def test_what_is_sent_is_one_binary_message(size: int) -> None:
    assert frames(opened().send(bytes(size))) == [(0x82, bytes(size))]


def test_a_ping_is_answered_before_what_follows() -> None:
    layer = opened()
    assert layer.receive(masked(b"a") + masked(b"beat", PING) + masked(b"b")) == b"ab"
    assert frames(layer.outgoing()) == [(0x80 | PONG, b"beat")]
    assert layer.receive(masked(b"unasked", PONG)) == b""
    assert layer.outgoing() == b""


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
def test_a_close_is_answered_with_its_code(code: int) -> None:
    layer = opened()
    data = masked(b"last") + masked(code.to_bytes(2, "big") + "tschüß".encode(), CLOSE)
    assert layer.receive(data) == b"last"
    assert layer.has_ended
    assert frames(layer.outgoing()) == [(LAST, code.to_bytes(2, "big"))]
    assert (layer.close(), layer.receive(masked(b"more")), layer.outgoing()) == (b"", b"", b"")


def test_a_close_without_a_code_is_normal() -> None:
    assert closed(opened(), masked(b"", CLOSE)) == 1000


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\x03", 1002),
        *((bad.to_bytes(2, "big"), 1002) for bad in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)),
        (b"\x03\xe8\xff\xfe", 1007),
    ],
)
def test_a_bad_close_is_a_mistake(payload: bytes, code: int) -> None:
    assert closed(opened(), masked(payload, CLOSE)) == code


def test_a_mistake_is_told_and_what_came_before_counts() -> None:
    layer = opened()
    assert layer.receive(masked(b"before") + masked(b"x", TEXT)) == b"before"
    assert layer.has_ended
    assert frames(layer.outgoing())[0][1][:2] == (1003).to_bytes(2, "big")
    with pytest.raises(Broken, match="binary"):
        opened().receive(masked(b"x", TEXT))
    assert closed(opened(), masked(b"x", TEXT)) == 1003
    assert closed(opened(), masked(bytes((1 << 20) + 1))) == 1009


def test_our_own_end_is_a_close_frame() -> None:
    layer = opened()
    assert frames(layer.close()) == [(LAST, (1000).to_bytes(2, "big"))]
    assert layer.close() == b""
    assert WebSocket(TERMS).close() == b""


def test_a_handshake_leaves_nothing_for_the_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        layer = opened()
        assert not [each for each in gc.get_objects() if isinstance(each, ServerProtocol)]
        assert layer.is_open
    finally:
        gc.enable()
