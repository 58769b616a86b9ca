"""The account of a trial with durable sessions: who was promised what, and what has come.

All clients of a trial live in one thread and tell one ledger, so that its moments are in the order
in which things happened. A message is owed to a subscriber when it was sent for the first time
after the subscriber's SUBACK had come and its publisher has an acknowledgement (PUBACK, PUBREC).

The members of a shared group are one subscriber, by the name of the group's filter (`$share/...`):
each message is owed to one of them, at QoS 2 once to all together, in any order (MQTT5 4.8.2).
"""

import itertools
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass, field
from typing import Final, NamedTuple


class Stream(NamedTuple):
    """What is numbered, and what order is asked for: publisher, topic and QoS (MQTT5 4.6)."""

    publisher: str
    topic: str
    qos: int

    def payload(self, number: int) -> bytes:
        """Return the payload of a message of this stream: its name, and filler that follows.

        The filler is up to 200 bytes, and 8 KiB where the topic ends in `big`.
        """
        name = f"{self.publisher} {self.topic} {self.qos} {number} ".encode()
        size = 8_192 if self.topic.endswith("big") else number * 37 % 200
        return name + (bytes((number + place) & 0x7F for place in range(128)) * 64)[:size]


def named(payload: bytes) -> tuple[Stream, int] | None:
    """Return stream and number of a payload; None when it is not one that was ever made."""
    words = payload.split(b" ", 4)
    try:
        stream = Stream(words[0].decode(), words[1].decode(), int(words[2]))
        number = int(words[3])
    except (IndexError, ValueError):
        return None
    return (stream, number) if stream.payload(number) == payload else None


SHARE: Final = "$share/"


def matches(topic_filter: str, topic: str) -> bool:
    """Return whether a filter without `$` matches a topic (MQTT5 4.7), level by level."""
    levels = topic.split("/")
    for place, wanted in enumerate(topic_filter.split("/")):
        if wanted == "#":
            return True
        if place >= len(levels) or wanted not in {"+", levels[place]}:
            return False
    return len(levels) == len(topic_filter.split("/"))


@dataclass
class Subscription:
    """What a subscriber has asked for, and when that was granted."""

    topic_filter: str
    qos: int
    since: int | None = None


@dataclass
class Sent:
    """What a publisher has done in one stream."""

    moments: list[int] = field(default_factory=list)
    acknowledged: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)


@dataclass
class Heard:
    """What a subscriber has received of one stream: how often each number, and the highest."""

    counts: Counter[int] = field(default_factory=Counter)
    highest: int = -1


@dataclass
class Verdict:
    """What was counted; `faults` are those that must be 0."""

    sent: int = 0
    acknowledged: int = 0
    refused: int = 0
    unanswered: int = 0
    owed: int = 0
    delivered: int = 0
    repeats: int = 0
    lost: int = 0
    duplicates: int = 0
    disordered: int = 0
    corrupt: int = 0
    forgotten: int = 0
    breaches: int = 0
    examples: list[str] = field(default_factory=list)

    def faults(self) -> dict[str, int]:
        """Return what must not be, without the zeros."""
        names = ("lost", "duplicates", "disordered", "corrupt", "forgotten", "breaches")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    def __str__(self) -> str:
        counted = [f"{value} {name}" for name, value in asdict(self).items() if name != "examples"]
        return "\n  ".join([", ".join(counted), *self.examples])


class Ledger:
    """The account; every method tells what has just happened, the time is told by the order."""

    EXAMPLES = 12

    def __init__(self) -> None:
        self._moments = itertools.count()
        self._sent: dict[Stream, Sent] = {}
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._heard: dict[tuple[str, Stream], Heard] = {}
        self._counts: Counter[str] = Counter()
        self._disordered: Counter[tuple[str, str]] = Counter()
        self._examples: list[str] = []
        self.progress = 0

    def sends(self, stream: Stream) -> int:
        """A publisher sends its next message for the first time; return the number."""
        sent = self._sent.setdefault(stream, Sent())
        sent.moments.append(next(self._moments))
        return len(sent.moments) - 1

    def acknowledged(self, stream: Stream, number: int) -> None:
        """The server has taken the responsibility for a message."""
        self._sent[stream].acknowledged.add(number)
        self.progress += 1

    def refused(self, stream: Stream, number: int) -> None:
        """The server has said that it does not take a message (MQTT5 3.4.2.1)."""
        self._sent[stream].refused.add(number)
        self.progress += 1

    def asks(self, subscriber: str, topic_filter: str, qos: int) -> None:
        """A SUBSCRIBE is sent: messages may come from here on (MQTT5 3.8.4)."""
        mine = self._subscriptions.setdefault(subscriber, [])
        if not any(each.topic_filter == topic_filter for each in mine):
            mine.append(Subscription(topic_filter, qos))

    def subscribed(self, subscriber: str, topic_filter: str) -> None:
        """A SUBACK grants a filter: what is sent from here on is owed, whatever comes later."""
        for each in self._subscriptions[subscriber]:
            if each.topic_filter == topic_filter and each.since is None:
                each.since = next(self._moments)

    def forgotten(self, client: str) -> None:
        """The server has said `session present` 0 about a session that it had confirmed."""
        self._note("forgotten", f"the session of {client}")

    def breach(self, client: str, what: str) -> None:
        """The server has sent what the protocol forbids."""
        self._note("breaches", f"{client}: {what}")

    def delivered(self, subscriber: str, topic: str, qos: int, payload: bytes) -> None:
        """A subscriber was given a message, by the rules of its QoS for the first time."""
        self.progress += 1
        found = named(payload)
        wanted = [
            each.qos
            for each in self._subscriptions.get(subscriber, ())
            if matches(each.topic_filter, topic)
        ]
        if found is None or found[0].topic != topic or found[0] not in self._sent:
            self._note("corrupt", f"{subscriber} was given {payload[:60]!r} on {topic}")
            return
        stream, number = found
        if number >= len(self._sent[stream].moments) or qos not in {
            min(each, stream.qos) for each in wanted
        }:
            self._note("corrupt", f"{subscriber}: {number} of {stream} at QoS {qos}, not asked for")
            return
        heard = self._heard.setdefault((subscriber, stream), Heard())
        heard.counts[number] += 1
        if heard.counts[number] > 1:
            self._again(subscriber, stream, number, qos)
        elif number < heard.highest and not subscriber.startswith(SHARE):
            self._disordered[subscriber, stream.publisher] += 1
            self._note("disordered", f"{subscriber}: {number} after {heard.highest} of {stream}")
        heard.highest = max(heard.highest, number)

    def _again(self, subscriber: str, stream: Stream, number: int, qos: int) -> None:
        if qos == 2:
            self._note("duplicates", f"{subscriber} has {number} of {stream} again")
        else:
            self._counts["repeats"] += 1

    def _note(self, name: str, example: str) -> None:
        self._counts[name] += 1
        if self._counts[name] <= self.EXAMPLES:
            self._examples.append(f"{name}: {example}")

    def _owed(self) -> Iterator[tuple[str, Stream, list[int], set[int]]]:
        """Yield for each subscriber and stream the numbers owed, and those of them not there."""
        for subscriber, subscriptions in self._subscriptions.items():
            for stream, sent in self._sent.items():
                since = [
                    each.since
                    for each in subscriptions
                    if each.since is not None and matches(each.topic_filter, stream.topic)
                ]
                if not since:
                    continue
                owed = [n for n in sent.acknowledged if sent.moments[n] > min(since)]
                heard = self._heard.get((subscriber, stream), Heard()).counts
                yield subscriber, stream, owed, {n for n in owed if n not in heard}

    def heard(self, subscriber: str, stream: Stream) -> set[int]:
        """Return the numbers that a subscriber has received of a stream."""
        return {*self._heard.get((subscriber, stream), Heard()).counts}

    def missing(self, *subscribers: str) -> int:
        """Return how many deliveries are owed now (to these, or to all) and have not come."""
        wanted = subscribers or self._subscriptions
        return sum(len(absent) for who, _, _, absent in self._owed() if who in wanted)

    def between(self, subscribers: Container[str], publishers: Container[str]) -> dict[str, int]:
        """Count deliveries from these to these: `owed`, of these `missing`, and `disordered`."""
        found = Counter[str](owed=0, missing=0)
        found["disordered"] = sum(
            count
            for (subscriber, publisher), count in self._disordered.items()
            if subscriber in subscribers and publisher in publishers
        )
        for subscriber, stream, owed, absent in self._owed():
            if subscriber in subscribers and stream.publisher in publishers:
                found["owed"] += len(owed)
                found["missing"] += len(absent)
        return found

    def verdict(self) -> Verdict:
        """Return what was counted until now; what has not come is called lost."""
        found = Verdict(examples=list(self._examples))
        for name, count in self._counts.items():
            setattr(found, name, count)
        for sent in self._sent.values():
            found.sent += len(sent.moments)
            found.acknowledged += len(sent.acknowledged)
            found.refused += len(sent.refused)
        found.unanswered = found.sent - found.acknowledged - found.refused
        found.delivered = sum(len(heard.counts) for heard in self._heard.values())
        for subscriber, stream, owed, absent in self._owed():
            found.owed += len(owed)
            found.lost += len(absent)
            if absent and found.lost - len(absent) < self.EXAMPLES:
                first = ", ".join(map(str, sorted(absent)[:8]))
                of = f"{len(absent)} of {len(owed)} of {stream}"
                found.examples.append(f"lost: {subscriber} lacks {of}: {first}")
        return found
