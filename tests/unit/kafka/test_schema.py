"""What a field is in which version."""

from typing import Annotated

from robustmq.kafka.schema import (
    Batches,
    Field,
    Int16,
    Int32,
    Message,
    Shape,
    Uuid,
    fields_of,
    nullable,
    since,
    tagged,
    until,
    versions,
)


class Inner(Message):
    """A part."""

    name: str = ""


class Outer(Message):
    """A message with one of each."""

    number: Int32 = -1
    old: Annotated[Int16, until(2)] = 0
    new: Annotated[str | None, since(3), nullable(5)] = ""
    between: Annotated[bool, versions(1, 2)] = False
    parts: list[Inner] = []  # noqa: RUF012
    numbers: list[Int32] | None = None
    tag: Annotated[Inner | None, since(4), tagged(7)] = None
    topic: Uuid = bytes(16)
    batches: Batches = None


def field(name: str, version: int) -> Field:
    return next(field for field in fields_of(Outer, version) if field.name == name)


def present(version: int) -> list[str]:
    return [field.name for field in fields_of(Outer, version) if field.is_present]


def test_a_version_has_its_fields_in_their_order() -> None:
    always = ["parts", "numbers", "topic", "batches"]
    assert present(0) == ["number", "old", *always]
    assert present(1) == ["number", "old", "between", *always]
    assert present(3) == ["number", "new", *always]
    assert present(4) == ["number", "new", *always[:2], "tag", *always[2:]]


def test_a_field_has_a_shape() -> None:
    assert field("number", 0).shape == Shape("fixed", "i")
    assert field("between", 0).shape == Shape("fixed", "?")
    assert field("topic", 0).shape == Shape("fixed", "16s")
    assert field("new", 0).shape == Shape("str")
    assert field("batches", 0).shape == Shape("batches")
    assert field("parts", 0).shape == Shape("list", item=Shape("message", message=Inner))
    assert field("numbers", 0).shape == Shape("list", item=Shape("fixed", "i"))


def test_null_is_of_versions_and_a_tagged_message_is_left_out_instead() -> None:
    assert [field("new", version).is_nullable for version in (3, 4, 5)] == [False, False, True]
    assert field("new", 3).can_be_none
    assert field("numbers", 0).is_nullable
    assert not field("tag", 4).is_nullable
    assert (field("tag", 4).tag, field("new", 4).tag) == (7, -1)


def test_a_default_is_source() -> None:
    assert [field(name, 0).default for name in ("number", "new", "parts", "tag")] == [
        "-1",
        "''",
        "[]",
        "None",
    ]
