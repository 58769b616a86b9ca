"""The SCRAM credentials of users: told and changed (KIP-554)."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from robustmq.broker.api import Credential, Salted
from robustmq.errors import Refusal, Refused
from robustmq.kafka.call import Call
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.scram import (
    AlterUserScramCredentialsRequest,
    AlterUserScramCredentialsResponse,
    AlterUserScramCredentialsResult,
    CredentialInfo,
    DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse,
    DescribeUserScramCredentialsResult,
)
from robustmq.kafka.protocol import Kafka
from robustmq.kafka.rights import Operation, Resource

MECHANISMS: Final = {1: "SCRAM-SHA-256", 2: "SCRAM-SHA-512"}
"""The methods by the numbers of Kafka."""

_NUMBERS: Final = {name: number for number, name in MECHANISMS.items()}
_ITERATIONS: Final = (4_096, 16_384)
_LENGTHS: Final = {"SCRAM-SHA-256": 32, "SCRAM-SHA-512": 64}
_DENIED: Final = "the credentials of users are for administrators of the cluster"


class _Wanted(NamedTuple):
    """What is to become of a user: what is set, what is removed, or what is wrong with it."""

    salted: list[Salted]
    removed: list[str]
    faults: list[tuple[ErrorCode, str]]


class Credentials:
    """The handlers of DescribeUserScramCredentials 0 and AlterUserScramCredentials 0."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka

    # ------------------------------------------------------------------ told

    def describe(self, call: Call[DescribeUserScramCredentialsRequest]) -> None:
        """Say by which methods users can come."""
        if not self._kafka.may(call.principal, Operation.DESCRIBE, Resource.CLUSTER):
            error = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
            response = DescribeUserScramCredentialsResponse(error_code=error, error_message=_DENIED)
            call.answer(response)
            return
        known = self._kafka.credentials.of(call.principal.tenant)
        asked = [user.name for user in call.request.users or ()] or list(known)
        counts = Counter(asked)
        results = [_described(name, known.get(name), count) for name, count in counts.items()]
        call.answer(DescribeUserScramCredentialsResponse(error_message=None, results=results))

    # ------------------------------------------------------------------ changed

    def alter(self, call: Call[AlterUserScramCredentialsRequest]) -> None:
        """Set and remove credentials, each user by itself."""
        wanted = _wanted(call.request)
        if not self._kafka.may(call.principal, Operation.ALTER, Resource.CLUSTER):
            error = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
            results = [_result(name, error, _DENIED) for name in wanted]
            call.answer(AlterUserScramCredentialsResponse(results=results))
            return
        known = self._kafka.credentials.of(call.principal.tenant)
        results = []
        if not wanted:
            call.answer(AlterUserScramCredentialsResponse())
        for name, each in wanted.items():
            done = partial(_collect, call, results, len(wanted), name)
            _miss(each, name, known.get(name, ()))
            if each.faults:
                done(*each.faults[0])
            else:
                self._alter(call.principal.tenant, name, each, done)

    def _alter(
        self, tenant: str, name: str, wanted: _Wanted, done: Callable[[ErrorCode, str | None], None]
    ) -> None:
        def changed(refused: Refused | None) -> None:
            if refused is None:
                done(ErrorCode.NONE, None)
            elif refused.code is Refusal.NOT_AUTHORIZED:
                done(ErrorCode.UNACCEPTABLE_CREDENTIAL, refused.detail)
            else:
                done(ErrorCode.NOT_CONTROLLER, refused.detail)

        self._kafka.credentials.alter(tenant, name, wanted.salted, wanted.removed, changed)


def _described(
    name: str, known: Sequence[Credential] | None, count: int
) -> DescribeUserScramCredentialsResult:
    if count > 1:
        error, why = ErrorCode.DUPLICATE_RESOURCE, f"the user {name} is asked for twice"
    elif known is None:
        error, why = ErrorCode.RESOURCE_NOT_FOUND, f"the user {name} has no such credentials"
    else:
        infos = [
            CredentialInfo(mechanism=_NUMBERS[each.method], iterations=each.iterations)
            for each in known
        ]
        return DescribeUserScramCredentialsResult(
            user=name, error_message=None, credential_infos=infos
        )
    return DescribeUserScramCredentialsResult(user=name, error_code=error, error_message=why)


def _wanted(request: AlterUserScramCredentialsRequest) -> dict[str, _Wanted]:
    """Sort what is wanted by user, with what is wrong with it."""
    found: dict[str, _Wanted] = {}
    seen: set[tuple[str, int]] = set()
    removed = [(each.name, each.mechanism) for each in request.deletions]
    for named in [*removed, *((each.name, each.mechanism) for each in request.upsertions)]:
        name, mechanism = named
        user = found.setdefault(name, _Wanted([], [], []))
        if mechanism not in MECHANISMS:
            why = f"the mechanism {mechanism} is not known"
            user.faults.append((ErrorCode.UNSUPPORTED_SASL_MECHANISM, why))
        elif named in seen:
            why = f"a credential of the user {name} is named twice"
            user.faults.append((ErrorCode.DUPLICATE_RESOURCE, why))
        seen.add(named)
    for gone in request.deletions:
        found[gone.name].removed.append(MECHANISMS.get(gone.mechanism, ""))
    for new in request.upsertions:
        user, method = found[new.name], MECHANISMS.get(new.mechanism, "")
        salted = Salted(method, new.iterations, new.salt, new.salted_password)
        user.salted.append(salted)
        if not _ITERATIONS[0] <= new.iterations <= _ITERATIONS[1]:
            why = f"a credential has {_ITERATIONS[0]} to {_ITERATIONS[1]} iterations"
            user.faults.append((ErrorCode.UNACCEPTABLE_CREDENTIAL, why))
        elif not new.salt or len(new.salted_password) != _LENGTHS.get(method):
            why = "a credential has a salt, and a salted password as long as its digest"
            user.faults.append((ErrorCode.UNACCEPTABLE_CREDENTIAL, why))
    return found


def _miss(wanted: _Wanted, name: str, known: Sequence[Credential]) -> None:
    """Note that a credential that is to be removed is not there."""
    methods = {each.method for each in known}
    if not methods.issuperset(wanted.removed):
        why = f"the user {name} has no such credential"
        wanted.faults.append((ErrorCode.RESOURCE_NOT_FOUND, why))


def _collect(  # noqa: PLR0917
    call: Call[AlterUserScramCredentialsRequest],
    results: list[AlterUserScramCredentialsResult],
    count: int,
    name: str,
    error: ErrorCode,
    why: str | None,
) -> None:
    results.append(_result(name, error, why))
    if len(results) == count:
        call.answer(AlterUserScramCredentialsResponse(results=results))


def _result(name: str, error: ErrorCode, why: str | None) -> AlterUserScramCredentialsResult:
    return AlterUserScramCredentialsResult(user=name, error_code=error, error_message=why)
