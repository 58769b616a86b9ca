"""What a cluster keeps of a session besides its messages: who has it, and what would take it up.

A session has one owner at a time. A tenure is what one node has of it, from its beginning or its
adoption on: `generation` names it, and `revision` counts what the owner has changed since, each
time from a clock that never goes back. What arrives late from an earlier tenure, or twice, changes
nothing.
"""

import enum

import msgspec


class WillRecord(msgspec.Struct, array_like=True, gc=False):
    """A will (MQTT5 3.1.2.5); `properties` is its block as in CONNECT, b"" when there is none."""

    topic: bytes
    payload: bytes
    qos: int
    retain: bool
    properties: bytes


class SubscriptionRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A subscription: its filter as it was written, and its options as in SUBSCRIBE.

    `flags` is the byte of MQTT5 3.8.3.1 without retain handling; `identifier` is encoded as it
    goes into messages.
    """

    written: bytes
    flags: int
    identifier: bytes = b""


class SessionHead(msgspec.Struct, array_like=True, gc=False):
    """A session without its subscriptions.

    `expiry` is in seconds, 0xFFFFFFFF for ever; `ended_ms` is when its last connection ended, 0
    while there is one; `version` the protocol's that it spoke; `username`, `address` and
    `superuser` say who its client was. One that is not `durable` ends with its connection, and
    has a row for the sake of its will. `born` is the generation of its first tenure: who begins
    anew under the same name has another one.
    """

    durable: bool
    expiry: int
    ended_ms: int
    version: int
    username: str | None = None
    will: WillRecord | None = None
    address: str = ""
    superuser: bool = False
    born: int = 0


class SessionRecord(msgspec.Struct, array_like=True, gc=False):
    """A session as the cluster knows it: `identity` is its client's (`Principal.identity`).

    `owner` is the number of the node that has it, in the tenure `generation`.
    """

    identity: str
    owner: int
    generation: int
    revision: int
    head: SessionHead
    subscriptions: list[SubscriptionRecord] = []


class SessionChange(msgspec.Struct, array_like=True, gc=False):
    """What its owner changes of a session, or how a node becomes the owner.

    With `takes` a tenure begins: 0 for a new session, else the generation of the tenure that it
    follows. A `head` of None ends the session. `subscribed` are new or have other options; with
    `whole` they are all that there are. `unsubscribed` are filters as they were written.
    """

    identity: str
    owner: int
    generation: int
    revision: int
    takes: int | None = None
    head: SessionHead | None = None
    subscribed: list[SubscriptionRecord] = []
    unsubscribed: list[bytes] = []
    whole: bool = False


class Verdict(enum.IntEnum):
    """What became of a change."""

    DONE = 0
    TAKEN = 1
    """Another node has the session, or another tenure: nothing was changed."""
    GONE = 2
    """There is no such session any more: nothing was changed."""
    UNKNOWN = 3
    """It was not heard in time whether it is done: it may be, or may still come to be."""


def judge(row: SessionRecord | None, change: SessionChange) -> Verdict:
    """Say what becomes of a change where the cluster has `row`; never UNKNOWN."""
    if row is None:
        return Verdict.GONE if change.takes is None or change.takes else Verdict.DONE
    if row.owner == change.owner and row.generation == change.generation:
        return Verdict.DONE
    if change.takes is None or change.generation <= row.generation:
        return Verdict.TAKEN
    is_next = change.takes == row.generation or (not change.takes and row.owner == change.owner)
    return Verdict.DONE if is_next else Verdict.TAKEN


def changed(row: SessionRecord | None, change: SessionChange) -> SessionRecord | None:
    """Return the row after a change that `judge` found DONE; None when the session is over.

    A repeat leaves the row as it is.
    """
    is_new = row is None or row.generation != change.generation
    if row is not None and not is_new and change.revision <= row.revision:
        return row
    if change.head is None:
        return None
    kept: dict[bytes, SubscriptionRecord] = {}
    if row is not None and not change.whole:
        kept = {each.written: each for each in row.subscriptions}
    for written in change.unsubscribed:
        kept.pop(written, None)
    kept.update((each.written, each) for each in change.subscribed)
    return SessionRecord(
        change.identity,
        change.owner,
        change.generation,
        change.revision,
        change.head,
        list(kept.values()),
    )
