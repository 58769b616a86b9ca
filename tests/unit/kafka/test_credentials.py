"""Administrators set passwords by Kafka's client, and users come by them."""

import hashlib
from collections.abc import Callable, Sequence

from robustmq.broker.api import CredentialBook, Principal
from robustmq.errors import Refusal, Refused
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.handlers.credentials import Credentials
from robustmq.kafka.messages.scram import (
    AlterUserScramCredentialsRequest,
    AlterUserScramCredentialsResponse,
    DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse,
    ScramCredentialDeletion,
    ScramCredentialUpsertion,
    UserName,
)
from robustmq.kafka.rights import Operation, Resource
from robustmq.kafka.schema import Message
from robustmq.meta.commands import Expectation
from robustmq.meta.records import Record, decoded
from robustmq.policy.passwords import written
from robustmq.policy.users import AddedUsers, Users
from robustmq.settings.users import User
from tests.kafka_front import Desk

ADMIN = Principal("admin", "admin")
ROUNDS = 4_096


class _Book:
    """The records of users, changed at once; and the handlers over them."""

    def __init__(self, *configured: User) -> None:
        self.added = AddedUsers()
        self.refusal: Refused | None = None
        self.denied: set[Operation] = set()
        self.index = 0
        desk = Desk()
        desk.kafka.credentials = CredentialBook(lambda: configured, self.added, self.change)
        desk.may = self.may  # type: ignore[method-assign]
        self.handlers = Credentials(desk.kafka)

    def may(
        self, principal: Principal, operation: Operation, resource: Resource, name: str
    ) -> bool:
        assert (principal, resource, name) == (ADMIN, Resource.CLUSTER, "kafka-cluster")
        return operation not in self.denied

    def change(
        self,
        records: Sequence[Record],
        expected: Sequence[Expectation],
        done: Callable[[Refused | None], None],
    ) -> None:
        if self.refusal is None:
            ((record,), (before,)) = (records, expected)
            tenant, _, username = record.name.partition("/")
            assert before.index == self.added.changed_at.get((tenant, username), 0)
            self.index += 1
            value = None if record.value is None else decoded(record.value)
            self.added.apply(record.name, value, self.index)
        done(self.refusal)

    def _call(
        self, request: Message, handler: Callable[[Call[Message]], None], api: int
    ) -> Message | None:
        answers: list[Message | None] = []
        handler(Call(api, 0, "c", ADMIN, request, 0, answers.append))
        (answer,) = answers
        return answer

    def alter(self, **wanted: list[Message]) -> list[tuple[str, int]]:
        request = AlterUserScramCredentialsRequest(**wanted)  # type: ignore[arg-type]
        answer = self._call(
            request,
            self.handlers.alter,  # type: ignore[arg-type]
            ApiKey.ALTER_USER_SCRAM_CREDENTIALS,
        )
        assert isinstance(answer, AlterUserScramCredentialsResponse)
        return [(each.user, each.error_code) for each in answer.results]

    def told(self, *names: str) -> dict[str, tuple[int, list[tuple[int, int]]]]:
        asked = [UserName(name=name) for name in names] if names else None
        answer = self._call(
            DescribeUserScramCredentialsRequest(users=asked),
            self.handlers.describe,  # type: ignore[arg-type]
            ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS,
        )
        assert isinstance(answer, DescribeUserScramCredentialsResponse)
        return {
            each.user: (
                each.error_code,
                [(info.mechanism, info.iterations) for info in each.credential_infos],
            )
            for each in answer.results
        }


def _set(
    name: str, mechanism: int = 1, rounds: int = ROUNDS, salt: bytes = b"salt"
) -> ScramCredentialUpsertion:
    digest = {1: "sha256", 2: "sha512"}.get(mechanism, "sha256")
    salted = hashlib.pbkdf2_hmac(digest, b"secret", salt or b"x", rounds)
    return ScramCredentialUpsertion(
        name=name, mechanism=mechanism, iterations=rounds, salt=salt, salted_password=salted
    )


def _gone(name: str, mechanism: int = 1) -> ScramCredentialDeletion:
    return ScramCredentialDeletion(name=name, mechanism=mechanism)


def test_a_password_that_was_set_lets_its_user_in() -> None:
    book = _Book()
    assert book.alter(upsertions=[_set("alice"), _set("alice", 2), _set("bob")]) == [
        ("alice", 0),
        ("bob", 0),
    ]
    assert book.told() == {
        "alice": (0, [(1, ROUNDS), (2, ROUNDS)]),
        "bob": (0, [(1, ROUNDS)]),
    }
    account = Users((), book.added.by_name).find("default", "alice")
    assert account is not None
    assert [each.matches(b"secret") for each in account.verifiers] == [True, True]
    assert account.verifiers[0].method == "SCRAM-SHA-256"


def test_a_credential_that_is_removed_is_gone_and_with_the_last_one_the_user() -> None:
    book = _Book()
    book.alter(upsertions=[_set("alice"), _set("alice", 2)])
    assert book.alter(deletions=[_gone("alice")]) == [("alice", 0)]
    assert book.told("alice") == {"alice": (0, [(2, ROUNDS)])}
    assert book.alter(deletions=[_gone("alice", 2)]) == [("alice", 0)]
    assert book.added.by_name == {}
    assert book.told("alice") == {"alice": (ErrorCode.RESOURCE_NOT_FOUND, [])}


def test_what_else_a_user_may_stays_as_it_is() -> None:
    book = _Book()
    book.added.apply("default/alice", {"superuser": True, "client_id": "a*"}, 7)
    assert book.alter(upsertions=[_set("alice")]) == [("alice", 0)]
    user = book.added.by_name["default", "alice"]
    assert (user.superuser, user.client_id, len(user.passwords)) == (True, "a*", 1)
    book.alter(deletions=[_gone("alice")])
    assert book.added.by_name["default", "alice"].superuser


def test_users_of_the_configuration_are_told_and_not_changed() -> None:
    kept = written("SCRAM-SHA-512", "secret", b"salt")
    book = _Book(User(username="alice", password=kept), User(username="bob"))
    assert book.told() == {"alice": (0, [(2, ROUNDS)])}
    assert book.alter(upsertions=[_set("alice")]) == [("alice", ErrorCode.UNACCEPTABLE_CREDENTIAL)]


def test_what_is_wrong_with_a_credential_is_told_of_its_user_alone() -> None:
    book = _Book()
    assert book.alter(
        deletions=[_gone("nobody")],
        upsertions=[
            _set("weak", rounds=4_095),
            _set("strong", rounds=16_385),
            _set("unsalted", salt=b""),
            _set("odd", 3),
            _set("twice"),
            _set("twice"),
            _set(""),
            _set("good"),
        ],
    ) == [
        ("nobody", ErrorCode.RESOURCE_NOT_FOUND),
        ("weak", ErrorCode.UNACCEPTABLE_CREDENTIAL),
        ("strong", ErrorCode.UNACCEPTABLE_CREDENTIAL),
        ("unsalted", ErrorCode.UNACCEPTABLE_CREDENTIAL),
        ("odd", ErrorCode.UNSUPPORTED_SASL_MECHANISM),
        ("twice", ErrorCode.DUPLICATE_RESOURCE),
        ("", ErrorCode.UNACCEPTABLE_CREDENTIAL),
        ("good", 0),
    ]
    assert [name for _, name in book.added.by_name] == ["good"]
    assert book.told("good", "good")["good"][0] == ErrorCode.DUPLICATE_RESOURCE


def test_only_administrators_are_told_and_change() -> None:
    book = _Book()
    book.denied = {Operation.ALTER, Operation.DESCRIBE}
    denied = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
    assert book.alter(upsertions=[_set("alice")]) == [("alice", denied)]
    assert book.told() == {}
    assert book.added.by_name == {}


def test_a_change_that_the_cluster_does_not_take_is_to_be_tried_again() -> None:
    book = _Book()
    book.refusal = Refused(Refusal.CONFLICT, "somebody else was faster")
    assert book.alter(upsertions=[_set("alice")]) == [("alice", ErrorCode.NOT_CONTROLLER)]
    assert book.alter() == []
