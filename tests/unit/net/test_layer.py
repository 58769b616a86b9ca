"""Layers over each other: what rises, what sinks, and who speaks through whom."""

import pytest

from robustmq.net.layer import Broken, Facts, Stack


class Marked:
    """A layer whose bytes are framed by its letter: "a{...}"; it opens after `greetings`."""

    has_ended = False

    def __init__(self, letter: bytes, greetings: int = 0) -> None:
        self.letter = letter
        # Of the lowest layer other ones, so that they may lie within each other.
        self.begin, self.end = (b"a{", b"}") if letter == b"a" else (letter + b"(", b")")
        self.greetings = greetings
        self.words = b""
        self.input = b""

    @property
    def is_open(self) -> bool:
        return self.greetings == 0

    def receive(self, data: bytes) -> bytes:
        self.input += data
        out = b""
        while self.input and self.greetings:
            if self.input[:1] != b"!":
                self.words += self.letter + b"?"
                raise Broken(f"no greeting for {self.letter.decode()}")
            self.greetings -= 1
            self.words += self.letter + b"!"
            self.input = self.input[1:]
        while self.input.startswith(self.begin) and self.end in self.input:
            inner, _, self.input = self.input[2:].partition(self.end)
            out += inner
        return out

    def send(self, data: bytes) -> bytes:
        assert self.is_open
        return self.letter + b"<" + data + b">"

    def outgoing(self) -> bytes:
        words, self.words = self.words, b""
        return words

    def close(self) -> bytes:
        return self.letter + b"." if self.is_open else b""

    def tell(self, facts: Facts) -> None:
        facts.path += self.letter.decode()


def test_bytes_rise_and_sink_through_all() -> None:
    stack = Stack([Marked(b"a"), Marked(b"b")])
    assert stack.is_open
    assert stack.receive(b"a{b(one)b(tw}a{o)}a{b(") == b"onetwo"
    assert stack.send(b"x") == b"a<b<x>>"
    assert stack.close() == b"a<b.>a."


def test_an_upper_layer_speaks_through_the_lower_ones() -> None:
    stack = Stack([Marked(b"a", 1), Marked(b"b", 1)])
    assert stack.receive(b"!") == b""
    assert (stack.is_open, stack.outgoing()) == (False, b"a!")
    assert stack.receive(b"a{!}") == b""
    assert (stack.is_open, stack.outgoing()) == (True, b"a<b!>")
    assert stack.outgoing() == b""


def test_what_opens_a_layer_may_bring_plain_bytes_too() -> None:
    stack = Stack([Marked(b"a", 1)])
    assert stack.receive(b"!a{x}") == b"x"
    assert stack.is_open


def test_the_last_words_of_a_layer_that_is_broken_are_kept() -> None:
    stack = Stack([Marked(b"a"), Marked(b"b", 1)])
    with pytest.raises(Broken, match="no greeting for b"):
        stack.receive(b"a{x}")
    assert stack.outgoing() == b"a<b?>"


def test_a_stack_that_is_half_open_closes_what_is_open() -> None:
    stack = Stack([Marked(b"a"), Marked(b"b", 1)])
    assert stack.close() == b"a."


def test_the_end_of_any_layer_is_the_end() -> None:
    lower = Marked(b"a")
    stack = Stack([lower, Marked(b"b")])
    assert not stack.has_ended
    lower.has_ended = True
    assert stack.has_ended


def test_all_tell_what_they_know_the_lowest_first() -> None:
    facts = Facts()
    Stack([Marked(b"a"), Marked(b"b")]).tell(facts)
    assert facts.path == "ab"
