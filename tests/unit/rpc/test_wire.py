"""The bytes between nodes: codes, greetings and batches."""

import pytest

from robustmq.errors import ProtocolError
from robustmq.rpc import wire
from robustmq.rpc.wire import CALLER, Call, Greeting, Hello, Raft, Refusal, Reply, Seal

KEY = b"k" * 32
NONCE = b"n" * wire.NONCE_BYTES


def test_a_batch_comes_out_as_it_went_in() -> None:
    batch: list[wire.Frame] = [Raft(b"\0\1"), Call(7, "join", b"x"), Reply(7, b"", "no")]
    assert wire.frames(wire.encode(batch)) == batch


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x91\x92\xa4what\x01"])
def test_bytes_that_are_no_batch_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.frames(data)


def test_a_code_is_good_once_in_its_place_and_direction() -> None:
    sealed = Seal(KEY, CALLER)
    first, second = sealed.close(b"one"), sealed.close(b"two")
    opened = Seal(KEY, CALLER)
    assert (opened.open(first), opened.open(second)) == (b"one", b"two")
    for wrong in (first, second):
        # Said again, or first when it was second.
        with pytest.raises(ProtocolError):
            opened.open(wrong)
    with pytest.raises(ProtocolError):
        Seal(KEY, CALLER).open(second)
    with pytest.raises(ProtocolError):
        Seal(KEY, wire.CALLEE).open(first)


@pytest.mark.parametrize("place", [0, wire.CODE_BYTES - 1, wire.CODE_BYTES, -1])
def test_one_bit_that_is_another_is_noticed(place: int) -> None:
    data = bytearray(Seal(KEY, CALLER).close(b"content"))
    data[place] ^= 1
    with pytest.raises(ProtocolError):
        Seal(KEY, CALLER).open(bytes(data))


@pytest.mark.parametrize("length", [0, 5, wire.CODE_BYTES])
def test_a_message_without_room_for_a_code_is_refused(length: int) -> None:
    with pytest.raises(ProtocolError):
        Seal(KEY, CALLER).open(bytes(length))


def test_without_a_secret_there_is_no_code() -> None:
    assert wire.key_of(b"", Greeting(1, NONCE), Greeting(1, NONCE)) == b""
    assert Seal(b"", CALLER).open(Seal(b"", CALLER).close(b"as it is")) == b"as it is"


def test_the_key_depends_on_all_that_was_said() -> None:
    one, other = Greeting(1, NONCE), Greeting(1, b"m" * wire.NONCE_BYTES)
    keys = {
        wire.key_of(b"secret", one, other),
        wire.key_of(b"secret", other, one),
        wire.key_of(b"other", one, other),
    }
    assert len(keys) == 3


def test_a_greeting_of_another_version_is_refused_in_a_sentence() -> None:
    with pytest.raises(ProtocolError, match="speaks version 2"):
        wire.greeting(wire.encode(Greeting(2, NONCE)))
    with pytest.raises(ProtocolError, match="bytes for"):
        wire.greeting(wire.encode(Greeting(wire.VERSION, b"short")))
    with pytest.raises(ProtocolError):
        wire.greeting(b"GET / HTTP/1.1")


def test_a_refusal_in_the_place_of_a_hello_is_told() -> None:
    with pytest.raises(ProtocolError, match="it refuses us: you are foreign"):
        wire.hello(wire.encode(Refusal("you are foreign")))
    mine = Hello("name", "id", 1, "store", "host:1", to=2)
    assert wire.hello(wire.encode(mine)) == mine
