"""The configuration of what is done with topics: rewriting, subscriptions by rule, shared groups.

What a type cannot say is checked where a row is made: it raises ValueError with the reason.
"""

import re
from typing import Annotated, Final, Literal, TypeAlias

import re2
from msgspec import Meta, Struct

from robustmq.settings.bounds import between

Strategy: TypeAlias = Literal[
    "round_robin",
    "random",
    "sticky",
    "least_inflight",
    "hash_clientid",
    "hash_topic",
    "local",
]
"""How a shared group chooses who takes a message."""

FILTER_MAX_BYTES: Final = 65_535
_REGEX_MAX: Final = 1_024
_REGEX_BYTES: Final = 1 << 20
"""What a compiled pattern and its matching may take, so that none is expensive."""

# MQTT5 4.7, as `message.topic.validate_filter` has it, which lies above this module.
_FILTER: Final = re.compile(r"(?:(?:\+|[^+#/\0]*)/)*(?:\+|#|[^+#/\0]*)")

PLACEHOLDER: Final = re.compile(r"\$\{(\w+)\}")
"""A name that stands for something of the client."""

PLACEHOLDERS: Final = ("clientid", "username", "host")
GROUP: Final = re.compile(r"\$(\d)")
"""A capture of the regular expression, in the topic that a rule writes."""


class TopicRewrite(Struct, frozen=True, kw_only=True):
    """`[[mqtt_runtime.topic_rewrite]]`: Topics that are written anew, one table for each rule.

    As in EMQX the last rule whose source_topic matches is the one that holds, and the only one: a
    topic that its regex does not match stays as it is. Where clients subscribe and unsubscribe,
    the filter is rewritten as if it were a topic; of a shared subscription the filter inside. Of
    delayed messages the topic behind the delay is rewritten. Limits are those of the new topic.

    action: publish: for what clients publish, wills too; subscribe: for their filters; all: both.
    source_topic: The topics that the rule is for, as an MQTT topic filter; it has to have one.
    regex: What of a topic is taken: a regular expression in the syntax of RE2, which has no look
        around and no back references, so that its time is bounded. It may match anywhere in the
        topic unless it begins with ^ and ends with $.
    dest_topic: The new topic: $1 to $9 are the groups of the regex, ${clientid}, ${username} and
        ${host} those of the client; a client that has none is not rewritten, and one whose name
        contains +, # or / is refused.
    """

    action: Literal["all", "publish", "subscribe"] = "all"
    source_topic: Annotated[str, Meta(min_length=1, examples=["x/#"])]
    regex: Annotated[str, Meta(min_length=1, max_length=_REGEX_MAX, examples=["^x/y/(.+)$"])]
    dest_topic: Annotated[str, Meta(min_length=1, examples=["z/y/$1"])]

    def __post_init__(self) -> None:
        if reason := wrong_filter(self.source_topic):
            raise ValueError(f"its source_topic {reason}")
        try:
            groups = compiled(self.regex).groups
        except re2.error as error:
            raise ValueError(f"its regex cannot be used: {_sentence(error)}") from None
        if reason := _wrong_names(self.dest_topic):
            raise ValueError(f"its dest_topic {reason}")
        most = max((int(number) for number in GROUP.findall(self.dest_topic)), default=0)
        if most > groups:
            raise ValueError(f"its dest_topic has ${most}, but its regex has {groups} groups")
        if self.action != "subscribe" and ("+" in self.dest_topic or "#" in self.dest_topic):
            raise ValueError("its dest_topic has a wildcard, to which nobody can publish")


class AutoSubscribe(Struct, frozen=True, kw_only=True):
    """`[[mqtt_runtime.auto_subscribe]]`: What every client is subscribed to when it connects.

    One table for each subscription. It is made right after CONNACK, also for a client that has
    unsubscribed on an earlier connection; one that the session has already stays as it is. What a
    client could not subscribe to itself it does not get.

    topic: The topic filter; ${clientid}, ${username} and ${host} are those of the client. One that
        has none, or whose name contains +, # or /, does not get the subscription.
    qos: The maximum QoS.
    no_local: Not the client's own messages.
    retain_as_published: Keep the retain flag of what is forwarded.
    retain_handling: 0: send retained messages; 1: when the subscription is new; 2: never.
    """

    topic: Annotated[str, Meta(min_length=1, examples=["client/${clientid}/in"])]
    qos: Annotated[int, between(0, 2)] = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: Annotated[int, between(0, 2)] = 0

    def __post_init__(self) -> None:
        if reason := wrong_template(self.topic):
            raise ValueError(f"its topic {reason}")
        if self.no_local and self.topic.startswith(("$share/", "$queue/")):
            raise ValueError("its topic is shared, for which no_local cannot be (MQTT5 3.8.3.1)")


class SharedGroup(Struct, frozen=True, kw_only=True):
    """`[[mqtt_runtime.shared.groups]]`: How some shared groups choose, one table for each rule.

    The first rule whose name fits a group is the one that holds; other groups choose by
    mqtt_runtime.shared.strategy.

    name: The groups, as a pattern: * is any text, ? any character, [ab] one of these.
    strategy: As mqtt_runtime.shared.strategy.
    """

    name: Annotated[str, Meta(min_length=1, examples=["workers-*"])]
    strategy: Strategy = "round_robin"


def compiled(regex: str) -> "re2._Regexp[str]":
    """Compile an expression whose time is linear in the topic; raises re2.error."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _REGEX_BYTES
    return re2.compile(regex, options)


def wrong_filter(topic_filter: str) -> str | None:
    """Say what is wrong with a rule's filter, None when it is good."""
    if topic_filter.startswith("$share/"):
        return "is a shared subscription's; a rule is for topics: leave out $share and the group"
    return _wrong_levels(topic_filter)


def wrong_template(text: str) -> str | None:
    """Say what is wrong with a filter that has placeholders, None when it is good."""
    return _wrong_names(text) or _wrong_levels(PLACEHOLDER.sub("x", text))


def _wrong_levels(topic_filter: str) -> str | None:
    if "\0" in topic_filter:
        return "holds U+0000, which no topic may"
    if len(topic_filter.encode()) > FILTER_MAX_BYTES:
        return f"is longer than {FILTER_MAX_BYTES} bytes"
    if not _FILTER.fullmatch(topic_filter):
        return "is no topic filter: + stands alone in its level, # alone in the last one"
    return None


def _wrong_names(text: str) -> str | None:
    if "\0" in text:
        return "holds U+0000, which no topic may"
    for name in PLACEHOLDER.findall(text):
        if name not in PLACEHOLDERS:
            known = ", ".join(f"${{{each}}}" for each in PLACEHOLDERS)
            return f"has ${{{name}}}, which stands for nothing; there are {known}"
    return None


def _sentence(error: Exception) -> str:
    reason = error.args[0] if error.args else ""
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
