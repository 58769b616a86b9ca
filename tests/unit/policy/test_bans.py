"""Bans: whom each kind concerns, until when, and what is left when they go."""

from typing import Any

import pytest

from robustmq.errors import Refusal
from robustmq.policy.bans import Bans, ban_of, is_over, record_of
from robustmq.policy.principal import Principal
from robustmq.settings.limits import Ban

NOW_MS = 1_700_000_000_000


def _value(kind: str, resource: str, end_time: int = 0) -> dict[str, Any]:
    return {"blacklist_type": kind, "resource_name": resource, "end_time": end_time, "desc": "why"}


@pytest.mark.parametrize(
    ("kind", "resource", "concerned", "others"),
    [
        ("ClientId", "a", Principal("a"), Principal("b", "a")),
        ("User", "u", Principal("x", "u"), Principal("u")),
        ("Ip", "10.0.0.7", Principal("x", None, "10.0.0.7"), Principal("x", None, "10.0.0.8")),
        ("Ip", "10.0.0.7", Principal("x", None, "::ffff:10.0.0.7"), Principal("x")),
        ("Ip", "fe80::1", Principal("x", None, "fe80::1"), Principal("x", None, "odd")),
        ("IPCIDR", "10.1.0.0/16", Principal("x", "", "10.1.9.9"), Principal("x", "", "10.2.0.1")),
        ("IPCIDR", "fd00::/8", Principal("x", None, "fd12::9"), Principal("x", None, "10.1.0.1")),
        ("IPCIDR", "0.0.0.0/0", Principal("x", None, "8.8.8.8"), Principal("x", None, "::1")),
        ("ClientIdMatch", "dev-?*", Principal("dev-12"), Principal("dev-")),
        ("ClientIdMatch", "[a]*", Principal("[a]b"), Principal("ab")),
        ("UserMatch", "*x", Principal("c", "yx"), Principal("x")),
    ],
)  # fmt: skip
def test_a_ban_concerns_whom_it_names(
    kind: str, resource: str, concerned: Principal, others: Principal
) -> None:
    bans = Bans()
    bans.apply("one", _value(kind, resource))
    refused = bans.refusal(concerned, NOW_MS)
    assert refused is not None
    assert refused.code is Refusal.BANNED
    assert refused.detail == f"{concerned.client_id} is banned for good: why"
    assert bans.refusal(others, NOW_MS) is None
    bans.apply("one", None)
    assert bans.refusal(concerned, NOW_MS) is None
    assert len(bans) == 0


def test_a_ban_ends_by_itself() -> None:
    bans = Bans()
    bans.apply("one", _value("ClientId", "a", NOW_MS // 1_000 + 1))
    assert bans.refusal(Principal("a"), NOW_MS) is not None
    assert bans.refusal(Principal("a"), NOW_MS + 999) is not None
    assert bans.refusal(Principal("a"), NOW_MS + 1_000) is None
    assert not is_over(ban_of("x", _value("User", "a")), NOW_MS)


def test_several_bans_of_one_client_go_one_by_one() -> None:
    bans = Bans()
    for name in ("one", "two"):
        bans.apply(name, _value("Ip", "1.1.1.1"))
        bans.apply(f"id-{name}", _value("ClientId", "a"))
    who = Principal("a", None, "1.1.1.1")
    for name in ("one", "id-two", "two"):
        bans.apply(name, None)
        assert bans.refusal(who, NOW_MS) is not None
    bans.apply("id-one", _value("ClientId", "b"))
    assert bans.refusal(who, NOW_MS) is None
    assert bans.refusal(Principal("b"), NOW_MS) is not None


def test_what_is_configured_stays() -> None:
    bans = Bans([Ban(blacklist_type="ClientId", resource_name="a")])
    heard: list[Ban] = []
    bans.added = heard.append
    bans.apply("", None)
    bans.apply("b", _value("ClientId", "b"))
    assert [ban.resource_name for ban in heard] == ["b"]
    bans.clear()
    assert bans.refusal(Principal("a"), NOW_MS) is not None
    assert bans.refusal(Principal("b"), NOW_MS) is None


@pytest.mark.parametrize(
    "value",
    [
        _value("Other", "a"),
        _value("ClientId", ""),
        _value("Ip", "10.0.0.0/8"),
        _value("IPCIDR", "10.0.0.1/8"),
        {"blacklist_type": "User"},
        _value("User", "a", -1),
    ],
)
def test_what_is_no_ban_is_refused(value: dict[str, Any]) -> None:
    bans = Bans()
    bans.apply("one", _value("ClientId", "a"))
    with pytest.raises(ValueError, match="the ban one cannot be used"):
        bans.apply("one", value)
    assert len(bans) == 1


def test_a_record_is_read_as_it_was_written() -> None:
    ban = Ban(name="n", blacklist_type="User", resource_name="u", end_time=5, desc="d")
    assert ban_of("n", record_of(ban)) == ban


@pytest.mark.parametrize(
    ("tenant", "concerned"),
    [(None, {"default"}), ("acme", {"acme"}), ("*", {"default", "acme", "beta"})],
)
@pytest.mark.parametrize(
    ("kind", "resource"),
    [("ClientId", "a"), ("User", "u"), ("ClientIdMatch", "a*"), ("UserMatch", "?")],
)
def test_a_ban_of_a_name_concerns_those_of_a_tenant(
    tenant: str | None, concerned: set[str], kind: str, resource: str
) -> None:
    bans = Bans()
    bans.apply("one", _value(kind, resource) | ({"tenant": tenant} if tenant else {}))
    everybody = [Principal("a", "u", tenant=each) for each in ("default", "acme", "beta")]
    banned = {each.tenant for each in everybody if bans.refusal(each, NOW_MS)}
    assert banned == concerned
    bans.apply("one", None)
    assert not any(bans.refusal(each, NOW_MS) for each in everybody)


def test_an_address_belongs_to_no_tenant() -> None:
    bans = Bans([Ban(blacklist_type="Ip", resource_name="10.0.0.7")])
    assert bans.refusal(Principal("a", None, "10.0.0.7", tenant="acme"), NOW_MS) is not None
