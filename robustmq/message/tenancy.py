"""Topics of tenants: within the node they carry the tenant's name, on the wire they do not.

A topic `a/b` of the tenant `acme` is `$<1>acme<1>/a/b`, where `<1>` is U+0001, and `$x/y` is
`$<1>acme<1>$x/y`: the first begins a level of its own and the second does not, so a filter that
begins with a wildcard matches neither the tenant's topics that begin with `$`, nor anything of
another tenant (MQTT5 4.7.2). Topics of the default tenant are as they are. What says how a message
or a subscription is handled (`$delayed/5/`, `$share/group/`) stays in front. The kernels that write
PUBLISH take the mark off again (`fanout`).
"""

from collections.abc import Collection
from typing import Final

from robustmq.message.delay import is_delayed
from robustmq.message.topic import inner_filter

DEFAULT_TENANT: Final = "default"
"""The tenant of everybody who belongs to no other."""

MARK: Final = b"$\x01"
"""What the topics of tenants begin with; no client may write it."""

_END: Final = b"\x01"
_SLASH: Final = b"/"
_DOLLAR: Final = b"$"


def qualified(tenant: str, topic: bytes) -> bytes:
    """The topic or filter, without a prefix of subscriptions, as the node knows it."""
    if tenant == DEFAULT_TENANT:
        return topic
    if is_delayed(topic) and topic.count(_SLASH) > 1:
        *delay, inner = topic.split(_SLASH, 2)
        return _SLASH.join((*delay, qualified(tenant, inner)))
    joint = b"" if topic.startswith(_DOLLAR) else _SLASH
    return MARK + tenant.encode() + _END + joint + topic


def qualified_filter(tenant: str, written: str) -> str:
    """The filter of a subscription, of a shared or exclusive one too, as the node knows it."""
    if tenant == DEFAULT_TENANT:
        return written
    inner = inner_filter(written)
    prefix = written[: len(written) - len(inner)]
    return prefix + qualified(tenant, inner.encode()).decode()


def local(topic: bytes) -> bytes:
    """The topic or filter as its clients write it; what has no mark in front is so already."""
    end = topic.find(_END, len(MARK)) if topic.startswith(MARK) else -1
    return topic if end < 0 else topic[end + 1 :].removeprefix(_SLASH)


def tenant_of(topic: bytes) -> str:
    """The tenant that a topic belongs to."""
    end = topic.find(_END, len(MARK)) if topic.startswith(MARK) else -1
    return DEFAULT_TENANT if end < 0 else topic[len(MARK) : end].decode()


def local_filter(known: str) -> str:
    """The filter of a subscription as its client writes it."""
    inner = inner_filter(known)
    return known[: len(known) - len(inner)] + local(inner.encode()).decode()


def named_tenant(name: str, tenants: Collection[str]) -> tuple[str, str] | None:
    """The tenant before the `@` of a user's or client's name, and the rest of the name.

    None when nobody of `tenants` stands there.
    """
    tenant, _, rest = name.partition("@")
    return (tenant, rest) if rest and tenant in tenants else None
