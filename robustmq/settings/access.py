"""The configuration of who may publish and subscribe to what: `[[acl]]`."""

import ipaddress
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct

from robustmq.settings.topics import wrong_template

Permission: TypeAlias = Literal["Allow", "Deny"]
AccessAction: TypeAlias = Literal["All", "Publish", "Subscribe", "PubSub", "Retain"]

ANYTHING: Final = "*"
"""Every topic, also those that begin with $."""
EXACTLY: Final = "eq "
"""In front of a filter: the rule is for subscriptions to this very filter alone."""


class AccessRule(Struct, frozen=True, kw_only=True):
    """`[[acl]]`: Who may publish and subscribe to what, one table for each; SIGHUP applies changes.

    The first table that is for the client, the action and the topic decides; without one
    mqtt_runtime.auth.default_permission does. For superusers no table holds. What is judged is the
    topic behind $share, $queue, $exclusive and $delayed, after topic_rewrite.

    permission: Allow or Deny.
    resource_type: What resource_name is: ClientId or User.
    resource_name: The clients that the rule is for, as a pattern: * stands for any characters, ?
        for one. A client without a user name is no user's.
    tenant: The tenant that the client belongs to; "*": any.
    topic: The topics, as an MQTT topic filter in which ${clientid}, ${username} and ${host} are
        those of the client; a client that has none, or whose name contains +, # or /, is not meant.
        "*": all topics. A rule that allows is for a subscription when it has all topics of it, one
        that denies when it has any: who may not have secret/# may not have # either. With "eq " in
        front a rule is for subscriptions to this very filter.
    ip: The address or network of the client, such as 10.0.0.0/8; "*": any.
    action: Publish, Subscribe, PubSub and All: both; Retain: publish what is to be retained, for
        which the rules about publishing hold too.
    name: The name of the rule; a client that is refused by it is told.
    desc: What it is for.
    """

    permission: Annotated[Permission, Meta(examples=["Deny"])]
    resource_type: Literal["ClientId", "User"] = "ClientId"
    resource_name: Annotated[str, Meta(min_length=1, max_length=65_535)] = "*"
    tenant: Annotated[str, Meta(min_length=1, max_length=256)] = "*"
    topic: Annotated[str, Meta(min_length=1, max_length=65_535)] = ANYTHING
    ip: Annotated[str, Meta(min_length=1, max_length=64)] = "*"
    action: AccessAction = "All"
    name: Annotated[str, Meta(max_length=256)] = ""
    desc: Annotated[str, Meta(max_length=1_024)] = ""

    def __post_init__(self) -> None:
        if self.topic.startswith(("$share/", "$queue/", "$exclusive/", "$delayed/")):
            raise ValueError(
                "its topic has a prefix, but rules are for the topics behind it: leave it out"
            )
        if self.topic != ANYTHING and (reason := wrong_template(self.topic.removeprefix(EXACTLY))):
            raise ValueError(f"its topic {reason}")
        try:
            if self.ip != "*":
                ipaddress.ip_network(self.ip)
        except ValueError as error:
            raise ValueError(f"its ip is no address and no network: {error}") from None
