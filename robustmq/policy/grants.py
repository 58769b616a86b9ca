"""Grants: who may do what to topics, groups and the cluster, as administrators of Kafka say it.

Of a resource that has grants, only what they allow is allowed: without one that allows it, it is
denied, and one that denies it is stronger than any that allows it. Where a resource has none,
others decide.
"""

import enum
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from types import MappingProxyType
from typing import Any, Final

import msgspec

from robustmq.message.topic import is_wildcard, matches
from robustmq.meta.records import Grant
from robustmq.policy.principal import Principal

TOPIC: Final = 2
GROUP: Final = 3
CLUSTER: Final = 4
TRANSACTIONAL_ID: Final = 5
"""What a grant is for."""
LITERAL: Final = 3
PREFIXED: Final = 4
"""How its name is meant."""
ALL: Final = 2
READ: Final = 3
WRITE: Final = 4
CREATE: Final = 5
DELETE: Final = 6
ALTER: Final = 7
DESCRIBE: Final = 8
DESCRIBE_CONFIGS: Final = 10
ALTER_CONFIGS: Final = 11
"""What it lets somebody do."""
DENY: Final = 2
ALLOW: Final = 3
ANY: Final = "*"
ANONYMOUS: Final = "ANONYMOUS"
"""The user that a client without a name is."""

_IMPLIED: Final[Mapping[int, frozenset[int]]] = MappingProxyType(
    {
        DESCRIBE: frozenset((READ, WRITE, DELETE, ALTER, DESCRIBE, ALL)),
        DESCRIBE_CONFIGS: frozenset((ALTER_CONFIGS, DESCRIBE_CONFIGS, ALL)),
    }
)
"""Who may do one of these may do the other as well."""


class Verdict(enum.Enum):
    """What grants say: `OTHERS`: there are some, and none of them is for this; `SILENT`: none."""

    DENIED = "denied"
    ALLOWED = "allowed"
    OTHERS = "others"
    SILENT = "silent"

    @property
    def refuses(self) -> bool:
        """Whether it may not be done."""
        return self in {Verdict.DENIED, Verdict.OTHERS}


class Grants:
    """The grants of the cluster, a fold of its records; `changed` is called when some are new."""

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.by_record: dict[str, Grant] = {}
        self._exact: dict[tuple[str, int, str], list[Grant]] = {}
        self._prefixed: dict[tuple[str, int], list[Grant]] = {}
        self._is_new = False

    def __len__(self) -> int:
        return len(self.by_record)

    # ------------------------------------------------------------------ what is allowed

    def judge(self, principal: Principal, operation: int, resource: int, name: str) -> Verdict:
        """Say whether somebody may do something to what has a name."""
        if not self.by_record:
            return Verdict.SILENT
        found = [*self._about(principal.tenant, resource, name)]
        if not found:
            return Verdict.SILENT
        own = [grant for grant in found if _is_for(grant, principal)]
        if any(each.permission == DENY and each.operation in {ALL, operation} for each in own):
            return Verdict.DENIED
        enough = _IMPLIED.get(operation, {operation, ALL})
        if any(each.permission == ALLOW and each.operation in enough for each in own):
            return Verdict.ALLOWED
        return Verdict.OTHERS

    def judge_filter(self, principal: Principal, topic_filter: str) -> Verdict:
        """Say whether somebody may subscribe to an MQTT filter, in which a wildcard is read so.

        Refused when there is a grant about any topic, or prefix, that it may match, and that topic
        may not be read; allowed when all topics may.
        """
        if not self.by_record or not is_wildcard(topic_filter.encode()):
            return self.judge(principal, READ, TOPIC, topic_filter)
        every = self.judge(principal, READ, TOPIC, ANY)
        if every.refuses:
            return every
        for grant in self.by_record.values():
            if grant.tenant == principal.tenant and _meets(grant, topic_filter):
                verdict = self.judge(principal, READ, TOPIC, grant.name)
                if verdict.refuses:
                    return verdict
        return every

    def _about(self, tenant: str, resource: int, name: str) -> Iterator[Grant]:
        yield from self._exact.get((tenant, resource, name), ())
        if name != ANY:
            yield from self._exact.get((tenant, resource, ANY), ())
        for grant in self._prefixed.get((tenant, resource), ()):
            if name.startswith(grant.name):
                yield grant

    # ------------------------------------------------------------------ the fold

    def clear(self) -> None:
        """Forget all: the records follow."""
        self.by_record.clear()
        self._exact.clear()
        self._prefixed.clear()
        self._is_new = True

    def apply(self, name: str, value: Mapping[str, Any] | None, changed: int = 0) -> None:
        """Learn of a grant by its record, or with None that it is gone; raises ValueError."""
        del changed
        self._is_new = True
        before = self.by_record.pop(name, None)
        if before is not None:
            self._place(before).remove(before)
        if value is not None:
            grant = msgspec.convert(value, Grant)
            self.by_record[name] = grant
            self._place(grant).append(grant)

    def settle(self) -> None:
        """All records of a message are folded."""
        if self._is_new:
            self._is_new = False
            self.changed()

    def _place(self, grant: Grant) -> list[Grant]:
        if grant.pattern == PREFIXED:
            return self._prefixed.setdefault((grant.tenant, grant.resource), [])
        return self._exact.setdefault((grant.tenant, grant.resource, grant.name), [])


def record_name(grant: Grant) -> str:
    """The name of a grant's record: the same for the same grant."""
    return blake2b(msgspec.msgpack.encode(grant), digest_size=16).hexdigest()


def _is_for(grant: Grant, principal: Principal) -> bool:
    username = principal.username or ANONYMOUS
    return grant.user in {ANY, username} and grant.host in {ANY, principal.address}


def _meets(grant: Grant, topic_filter: str) -> bool:
    """Whether a filter with a wildcard may match what a grant is about."""
    if grant.resource != TOPIC or grant.name == ANY:
        return False
    if grant.pattern == LITERAL:
        return matches(topic_filter.encode(), grant.name.encode())
    head = topic_filter.partition("#")[0].partition("+")[0]
    return head.startswith(grant.name) or grant.name.startswith(head)
