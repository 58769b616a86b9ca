"""Which topics the members of a group mean by the names and patterns that they subscribe to."""

from collections.abc import Iterable, Mapping

import re2

from robustmq.broker.catalog_api import Catalog
from robustmq.kafka.group_pages import Consumer


class Subscriptions:
    """The topics of a tenant as the catalog has them; what was found is kept until it changes."""

    def __init__(self, catalog: Catalog, tenant: str) -> None:
        self._catalog = catalog
        self._tenant = tenant
        self._version: int | None = None
        self._found: dict[tuple[frozenset[str], str], dict[bytes, int]] = {}

    @property
    def is_stale(self) -> bool:
        """Whether some topic may be another than when `of` was asked last."""
        return self._version != self._catalog.version

    def of(self, member: Consumer) -> Mapping[bytes, int]:
        """Return the topics that a member means, by id, with their numbers of partitions."""
        if self.is_stale:
            self._found.clear()
            self._version = self._catalog.version
        wanted = (member.topics, member.regex)
        found = self._found.get(wanted)
        if found is None:
            found = self._found[wanted] = self._look_up(*wanted)
        return found

    def forget(self, members: Iterable[Consumer]) -> None:
        """Forget what nobody of a group's members asks for any more."""
        asked = {(member.topics, member.regex) for member in members}
        self._found = {wanted: found for wanted, found in self._found.items() if wanted in asked}

    def name(self, topic_id: bytes) -> str | None:
        """Return what clients call a topic; None when there is none."""
        topic = self._catalog.by_id(topic_id)
        return None if topic is None else self._catalog.written(topic)

    def _look_up(self, names: frozenset[str], regex: str) -> dict[bytes, int]:
        found = {}
        for name in names:
            topic = self._catalog.find(self._tenant, name)
            if topic is not None:
                found[topic.id] = topic.partitions
        if regex:
            pattern = compiled(regex)
            for topic in self._catalog.walk(self._tenant):
                if pattern is not None and pattern.fullmatch(self._catalog.written(topic)):
                    found[topic.id] = topic.partitions
        return found


def compiled(regex: str) -> "re2._Regexp | None":
    """Compile a pattern (RE2 syntax); None when it is none."""
    try:
        return re2.compile(regex)
    except re2.error:
        return None
