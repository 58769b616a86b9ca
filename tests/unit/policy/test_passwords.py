"""What is kept of a password: the formats, and what matches them."""

import pytest

from robustmq.policy.passwords import METHODS, prepared, verifier, written


@pytest.mark.parametrize("method", METHODS)
def test_what_is_written_is_read_and_matches(method: str) -> None:
    text = written(method, "pencil", b"salt", 10)
    read = verifier(text)
    assert (read.method, read.iterations, read.salt) == (method, 10, b"salt")
    assert read.matches(b"pencil")
    assert not read.matches(b"pencils")
    assert not read.matches(b"")


def test_a_line_of_a_password_file_of_mosquitto() -> None:
    # Made by mosquitto_passwd.
    read = verifier(
        "$7$101$rFNHqSstvcFG86Ac$HsntlXUke36lLf87FLhv4O1RgZ7tAVRcblyf4GLRr3mBdINiPnNuukIqNiwXMOpl"
        "K8LD0MpA1Cp2lJll73tnIw=="
    )
    assert read.method is None
    assert read.matches(b"pencil")
    assert not read.matches(b"pencils")


@pytest.mark.parametrize("text", ["", "pencil", "SCRAM-SHA-1$1:YQ==$YQ==:YQ==", "$6$1$YQ==$YQ=="])
def test_other_formats_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a password is kept as"):
        verifier(text)


@pytest.mark.parametrize(
    ("given", "alike"),
    [
        ("I\u00adX", "IX"), ("user", "user"), ("USER", "USER"), ("\u00aa", "a"),
        ("\u2168", "IX"), ("a\u00a0b", "a b"), ("\u0007\u00e9", "\u0007\u00e9"),
    ],
)  # fmt: skip
def test_sasl_prep(given: str, alike: str) -> None:
    assert prepared(given.encode()) == alike.encode()


def test_a_password_that_is_no_text_stays_as_it_is() -> None:
    assert prepared(b"\xff\xfe") == b"\xff\xfe"
