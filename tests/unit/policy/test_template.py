"""Topics with the client's names in them."""

import pytest

from robustmq.errors import Refusal, Refused
from robustmq.policy.principal import Principal
from robustmq.policy.template import Template

WHO = Principal("c1", "ann", "10.0.0.7")


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("a/b", "a/b"),
        ("", ""),
        ("${clientid}", "c1"),
        ("u/${username}/${host}/x", "u/ann/10.0.0.7/x"),
        ("$1/${clientid}$1", "$1/c1$1"),
        ("$clientid/${}", "$clientid/${}"),
    ],
)
def test_names_are_filled_in(text: str, filled: str) -> None:
    assert Template(text).fill(WHO) == filled


def test_captures_are_filled_in_and_what_they_hold_is_not_read_again() -> None:
    template = Template("$2/${clientid}/$1/$0", captures=True)
    assert template.fill(WHO, ("all", "${username}", "$1")) == "$1/c1/${username}/all"
    assert template.fill(WHO, ("all", None, "b")) == "b/c1//all"


def test_who_has_no_name_gets_no_topic() -> None:
    assert Template("${username}").fill(Principal("c")) is None
    assert Template("${host}").fill(Principal("c")) is None
    assert Template("${username}").fill(Principal("c", "")) is None


@pytest.mark.parametrize("name", ["#", "a+", "a/b", "a\0"])
def test_a_name_that_reaches_further_than_its_level_is_refused(name: str) -> None:
    refused = Template("u/${clientid}").fill(Principal(name))
    assert isinstance(refused, Refused)
    assert refused.code is Refusal.TOPIC_INVALID
    assert "clientid" in refused.detail


def test_whether_it_depends_on_the_client() -> None:
    assert Template("${host}").has_names
    assert not Template("$1/x", captures=True).has_names
