import pytest

from robustmq.net import quic_replies
from robustmq.net.quic_replies import RetryTokens

HERE = ("10.0.0.1", 1_000)


def test_a_token_gives_back_the_first_id() -> None:
    token = RetryTokens(b"secret").issue(HERE, b"original", b"offered.", 5.0)
    for seconds in (0.0, 9.9):
        tokens = RetryTokens(b"secret")
        assert tokens.original(token, HERE, b"offered.", 5.0 + seconds) == b"original"


@pytest.mark.parametrize(
    ("secret", "address", "offered", "now"),
    [
        (b"other", HERE, b"offered.", 5.0),
        (b"secret", ("10.0.0.2", 1_000), b"offered.", 5.0),
        (b"secret", ("10.0.0.1", 1_001), b"offered.", 5.0),
        (b"secret", HERE, b"another.", 5.0),
        (b"secret", HERE, b"offered.", 15.1),
        (b"secret", HERE, b"offered.", 4.9),
    ],
)
def test_a_token_is_good_for_one_address_one_id_and_ten_seconds(
    secret: bytes, address: tuple[str, int], offered: bytes, now: float
) -> None:
    token = RetryTokens(b"secret").issue(HERE, b"original", b"offered.", 5.0)
    assert RetryTokens(secret).original(token, address, offered, now) is None


def test_what_is_no_token_is_no_token() -> None:
    tokens = RetryTokens(b"secret")
    token = tokens.issue(HERE, b"o" * 20, b"offered.", 5.0)
    assert tokens.original(token, HERE, b"offered.", 5.0) == b"o" * 20
    for length in range(len(token)):
        assert tokens.original(token[:length], HERE, b"offered.", 5.0) is None
    assert tokens.original(token + b"x", HERE, b"offered.", 5.0) is None
    assert tokens.original(b"x" * 2_000, HERE, b"offered.", 5.0) is None


def test_a_reset_looks_like_a_short_packet_and_ends_in_its_token() -> None:
    token = bytes(range(16))
    for received in range(22, 2_000, 13):
        answer = quic_replies.stateless_reset(received, token, b"\xff" * 32)
        assert answer is not None
        assert 21 <= len(answer) < received
        assert answer[0] & 0xC0 == 0x40
        assert answer.endswith(token)
    assert quic_replies.stateless_reset(21, token, b"\xff" * 32) is None
