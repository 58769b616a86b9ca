"""Who may publish and subscribe to what: the rules of access, the first that is for it decides."""

import fnmatch
import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from operator import attrgetter
from typing import Final, TypeAlias

from robustmq import metrics
from robustmq.errors import Refusal, Refused
from robustmq.message.topic import covers, matches, overlap
from robustmq.policy.grants import DESCRIBE, READ, TOPIC, WRITE, Grants, Verdict
from robustmq.policy.principal import Principal
from robustmq.policy.template import Template
from robustmq.settings.access import ANYTHING, EXACTLY, AccessAction, AccessRule, Permission

_PUBLISH: Final = frozenset[AccessAction](("All", "PubSub", "Publish"))
_RETAIN: Final = _PUBLISH | {"Retain"}
_SUBSCRIBE: Final = frozenset[AccessAction](("All", "PubSub", "Subscribe"))
_ANY: Final = "*"

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class _Rule:
    """One rule, compiled; `number` is its place in the file."""

    __slots__ = ("_exactly", "_network", "_pattern", "_template", "number", "rule")

    def __init__(self, number: int, rule: AccessRule) -> None:
        self.number = number
        self.rule = rule
        self._exactly = rule.topic.startswith(EXACTLY)
        anything = rule.topic == ANYTHING
        self._template = None if anything else Template(rule.topic.removeprefix(EXACTLY))
        glob = rule.resource_name.replace("[", "[[]")
        self._pattern = re.compile(fnmatch.translate(glob))
        self._network: _Network | None = None
        if rule.ip != _ANY:
            self._network = ipaddress.ip_network(rule.ip)

    def is_for(self, principal: Principal) -> bool:
        """Say whether the rule is for a client at all."""
        rule = self.rule
        name = principal.client_id if rule.resource_type == "ClientId" else principal.username
        if name is None or rule.tenant not in {_ANY, principal.tenant}:
            return False
        if self._pattern.match(name) is None:
            return False
        return self._network is None or _lies_in(principal.address, self._network)

    def has_topic(self, principal: Principal, topic: bytes) -> bool:
        """Say whether it is for what is published to a topic."""
        if self._template is None:
            return True
        filled = self._template.fill(principal)
        return not self._exactly and isinstance(filled, str) and matches(filled.encode(), topic)

    def has_filter(self, principal: Principal, topic_filter: bytes) -> bool:
        """Say whether it is for a subscription."""
        if self._template is None:
            return True
        text = self._template.fill(principal)
        if not isinstance(text, str):
            return False
        filled = text.encode()
        if self._exactly:
            return filled == topic_filter
        if self.rule.permission == "Allow":
            return covers(filled, topic_filter)
        return overlap(filled, topic_filter)


class Access:
    """Decides about topics within the client's tenant; a refusal is a value.

    Decisions are kept, at most `remembered`, and counted in `cells` when they are made: a message
    costs one look-up, and a plain one, which has a route, none.
    """

    def __init__(
        self,
        rules: Sequence[AccessRule] = (),
        default: Permission = "Allow",
        *,
        remembered: int = 1,
        cells: memoryview | None = None,
    ) -> None:
        self.grants = Grants()
        """What administrators of Kafka have said of topics; see `forget`."""
        self.version = 0
        """Another one whenever other rules or grants hold."""
        self._remembered = remembered
        self._cells = cells
        self._rules: Sequence[AccessRule] = ()
        self._default: Permission = "Allow"
        self.replace(rules, default)

    @property
    def denies(self) -> bool:
        """Whether there is something that somebody may not do."""
        return not self._allows_all or len(self.grants) > 0

    def replace(self, rules: Sequence[AccessRule], default: Permission) -> bool:
        """Judge by these rules from now on; say whether they are others than before.

        Then what was decided by the old ones, routes and subscriptions, is to be looked at anew.
        """
        is_new = (tuple(rules), default) != (tuple(self._rules), self._default)
        self._rules = rules
        self._default = default
        self._exact: dict[tuple[str, str], list[_Rule]] = {}
        self._patterns: list[_Rule] = []
        for number, rule in enumerate(rules):
            name = rule.resource_name
            is_pattern = "*" in name or "?" in name
            of_name = self._exact.setdefault((rule.resource_type, name), [])
            (self._patterns if is_pattern else of_name).append(_Rule(number, rule))
        self._allows_all = not rules and default == "Allow"
        self.forget()
        return is_new

    def forget(self) -> None:
        """Decide all anew: the grants are others."""
        self.version += 1
        self._known: dict[tuple[Principal, bytes, bool], Refused | None] = {}

    def publish(self, principal: Principal, topic: bytes, retain: bool) -> Refused | None:
        """Say why a client may not publish to a topic of its tenant; None when it may."""
        if principal.superuser or not self.denies:
            return None
        asked = (principal, topic, retain)
        if asked in self._known:
            return self._known[asked]
        name = topic.decode()
        what = "publish retained messages" if retain else "publish"
        verdict = self.grants.judge(principal, WRITE, TOPIC, name)
        sentence = f"{principal.client_id} may not {what} to {name}"
        refused = self._decide(self._for_topic(principal, topic, retain), verdict, sentence)
        if len(self._known) >= self._remembered:
            self._known.clear()
        self._known[asked] = refused
        return refused

    def subscribe(self, principal: Principal, topic_filter: bytes) -> Refused | None:
        """Say why a client may not subscribe to a filter of its tenant; None when it may."""
        if principal.superuser or not self.denies:
            return None
        rules = (each for each in self._of(principal) if each.rule.action in _SUBSCRIBE)
        found = (each for each in rules if each.has_filter(principal, topic_filter))
        name = topic_filter.decode()
        verdict = self.grants.judge_filter(principal, name)
        return self._decide(found, verdict, f"{principal.client_id} may not subscribe to {name}")

    def allows(self, principal: Principal, operation: int, resource: int, name: str) -> bool:
        """Say whether somebody may do something, in the numbers of `grants`.

        Of topics, who may publish may write, and who may subscribe may read, and both describe
        them. What else is done to a topic takes a grant, or that all may do all that nobody has
        said anything of; who may not publish to it may not change it either.
        """
        if principal.superuser or not self.denies:
            return True
        if resource == TOPIC and operation == READ:
            return self.subscribe(principal, name.encode()) is None
        if resource == TOPIC and operation == WRITE:
            return self.publish(principal, name.encode(), False) is None
        verdict = self.grants.judge(principal, operation, resource, name)
        if verdict is Verdict.DENIED:
            return False
        if resource == TOPIC and operation == DESCRIBE and verdict is not Verdict.ALLOWED:
            return any(self.allows(principal, each, TOPIC, name) for each in (READ, WRITE))
        first = next(self._for_topic(principal, name.encode(), False), None)
        if resource == TOPIC and first is not None and first.rule.permission == "Deny":
            return False
        if verdict is Verdict.SILENT:
            return self._default == "Allow"
        return verdict is Verdict.ALLOWED

    def _for_topic(self, principal: Principal, topic: bytes, retain: bool) -> Iterator[_Rule]:
        """The rules for what a client publishes to a topic."""
        action = _RETAIN if retain else _PUBLISH
        rules = (each for each in self._of(principal) if each.rule.action in action)
        return (each for each in rules if each.has_topic(principal, topic))

    def _of(self, principal: Principal) -> Iterator[_Rule]:
        """The rules for a client, in the order of the file."""
        named = [self._patterns, self._exact.get(("ClientId", principal.client_id), [])]
        if principal.username is not None:
            named.append(self._exact.get(("User", principal.username), []))
        ordered: Iterable[_Rule] = merge(*named, key=attrgetter("number"))
        return (each for each in ordered if each.is_for(principal))

    def _decide(self, found: Iterator[_Rule], verdict: Verdict, sentence: str) -> Refused | None:
        """A grant that denies, then the first rule, then a grant that allows, then the default."""
        first = next(found, None) if verdict is not Verdict.DENIED else None
        if first is not None:
            is_allowed = first.rule.permission == "Allow"
        elif verdict is Verdict.SILENT:
            is_allowed = self._default == "Allow"
        else:
            is_allowed = verdict is Verdict.ALLOWED
        if self._cells is not None:
            self._cells[metrics.ACL_SUCCESS if is_allowed else metrics.ACL_FAILED] += 1
        if is_allowed:
            return None
        if first is None and verdict is Verdict.DENIED:
            why = "an ACL that was set by a client of Kafka denies it"
        elif first is None and verdict is Verdict.OTHERS:
            why = "ACLs that were set by a client of Kafka allow it to others alone"
        elif first is None:
            why = "no rule of [[acl]] lets it (mqtt_runtime.auth.default_permission)"
        else:
            why = f"a rule of [[acl]]{first.rule.name and f', {first.rule.name},'} denies it"
        return Refused(Refusal.NOT_AUTHORIZED, f"{sentence}: {why}")


def _lies_in(address: str, network: _Network) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip in network
