"""Users of the configuration and users of records."""

import pytest

from robustmq.policy.logins import Login
from robustmq.policy.passwords import METHODS, written
from robustmq.policy.principal import Peer, Principal
from robustmq.policy.users import AddedUsers, Users, user_of
from robustmq.settings.users import User
from tests.logins import ScriptedLogins

PEER = Peer("10.0.0.1", "tcp")


def verifiers(password: str) -> list[str]:
    return [written(method, password, b"salt", 1) for method in METHODS]


def may_come(logins: ScriptedLogins, username: str, password: bytes) -> bool:
    answers: list[object] = []
    at_once = logins.log_in(Login(PEER, "c", username, password), answers.append)
    logins.look()
    return isinstance(at_once if at_once is not None else answers[0], Principal)


def test_added_users_are_beside_the_configured_ones() -> None:
    added = AddedUsers()
    configured = User(username="root", password=verifiers("one")[0])
    users = Users([configured], added.by_name)
    added.apply("default/alice", {"password": verifiers("two"), "superuser": True})
    added.apply("blue/a/b", {"password": []})
    # Who is in the configuration is so as it says.
    added.apply("default/root", {"superuser": True})
    alice = users.find("default", "alice")
    assert alice is not None
    assert (alice.superuser, len(alice.verifiers)) == (True, 2)
    assert users.find("blue", "a/b") is not None
    root = users.find("default", "root")
    assert root is not None
    assert not root.superuser
    assert len(users) == 4
    added.apply("default/alice", None)
    assert users.find("default", "alice") is None


@pytest.mark.parametrize("value", [{"password": "plain"}, {"superuser": 3}])
def test_a_record_that_is_no_user_takes_none_and_leaves_none(value: dict[str, object]) -> None:
    added = AddedUsers()
    heard: list[tuple[str | None, str | None]] = []
    added.changed = lambda tenant, username: heard.append((tenant, username))
    added.apply("default/alice", {"superuser": True})
    with pytest.raises(ValueError, match="the user default/alice cannot be used"):
        added.apply("default/alice", value)
    assert added.by_name == {}
    assert heard == [("default", "alice")] * 2
    added.clear()
    assert heard[-1] == (None, None)


def test_a_password_that_was_right_is_forgotten_when_its_user_changes() -> None:
    added = AddedUsers()
    logins = ScriptedLogins()
    added.changed = lambda tenant, username: logins.changed(
        Users((), added.by_name), tenant, username
    )
    assert may_come(logins, "anybody", b"")
    added.apply("default/alice", {"password": verifiers("one")})
    assert not may_come(logins, "anybody", b"")
    assert may_come(logins, "alice", b"one")
    added.apply("default/alice", {"password": verifiers("two")})
    assert [may_come(logins, "alice", each) for each in (b"one", b"two")] == [False, True]
    # What was found out of the one before does not count for the one that is now.
    logins.log_in(Login(PEER, "c", "alice", b"two"), lambda _answer: None)
    logins.changed(Users((), added.by_name), "default", "alice")
    answers: list[object] = []
    logins.log_in(Login(PEER, "c", "alice", b"two"), answers.append)
    added.apply("default/alice", {"password": verifiers("three")})
    logins.look()
    assert not may_come(logins, "alice", b"two")
    added.clear()
    assert may_come(logins, "anybody", b"")


def test_a_record_names_its_tenant_and_user() -> None:
    user = user_of("blue/alice", {"client_id": "a*"})
    assert (user.tenant, user.username, user.client_id) == ("blue", "alice", "a*")
