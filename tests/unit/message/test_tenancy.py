"""Topics of tenants: how they are known, that nothing else is, and that clients see none of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustmq.message.tenancy import local, local_filter, qualified, qualified_filter
from robustmq.message.topic import matches
from robustmq.policy.principal import Principal, client_of

TOPICS = st.text("ab/$", min_size=1, max_size=6)
FILTERS = st.lists(
    st.sampled_from(["a", "b", "", "+", "$a"]), min_size=1, max_size=4
).map("/".join) | st.lists(st.sampled_from(["a", "+", "$a"]), max_size=3).map(
    lambda levels: "/".join((*levels, "#"))
)  # fmt: skip
TENANTS = st.sampled_from(["default", "acme", "acm", "acme2"])


@pytest.mark.parametrize(
    ("topic", "known"),
    [
        (b"a/b", b"$\1acme\1/a/b"), (b"/a", b"$\1acme\1//a"), (b"$x/y", b"$\1acme\1$x/y"),
        (b"$delayed/5/a", b"$delayed/5/$\1acme\1/a"), (b"$delayed/x", b"$\1acme\1$delayed/x"),
        (b"$delayed/5/$x", b"$delayed/5/$\1acme\1$x"),
    ],
)  # fmt: skip
def test_topics(topic: bytes, known: bytes) -> None:
    assert qualified("acme", topic) == known
    assert qualified("default", topic) == topic


@pytest.mark.parametrize(
    ("written", "known"),
    [
        ("#", "$\1acme\1/#"), ("$share/g/+/x", "$share/g/$\1acme\1/+/x"),
        ("$share/$queue/x", "$share/$queue/$\1acme\1/x"), ("$x/#", "$\1acme\1$x/#"),
        ("$exclusive/a", "$exclusive/$\1acme\1/a"),
    ],
)  # fmt: skip
def test_filters(written: str, known: str) -> None:
    assert qualified_filter("acme", written) == known
    assert local_filter(known) == local_filter(written) == written
    assert qualified_filter("default", written) == written


@given(TENANTS, TOPICS)
def test_a_topic_comes_back_as_it_was(tenant: str, topic: str) -> None:
    assert local(qualified(tenant, topic.encode())) == topic.encode()


@given(TENANTS, TENANTS, FILTERS, TOPICS)
def test_a_filter_matches_as_before_and_in_its_own_tenant_only(
    mine: str, theirs: str, topic_filter: str, topic: str
) -> None:
    plainly = matches(topic_filter.encode(), topic.encode())
    known = qualified(mine, topic_filter.encode())
    assert matches(known, qualified(theirs, topic.encode())) == (plainly and mine == theirs)


@given(TENANTS, st.text("ab@\1", min_size=1, max_size=8))
def test_an_identity_says_who_it_is(tenant: str, client_id: str) -> None:
    identity = Principal(client_id, tenant=tenant).identity
    assert client_of(identity) == (tenant, client_id)


@pytest.mark.parametrize("topic", [b"", b"a", b"$\1", b"$\1a", b"$"])
def test_what_is_no_topic_of_a_tenant_is_as_it_is(topic: bytes) -> None:
    assert local(topic) == topic
