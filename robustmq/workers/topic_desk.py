"""The server process' own catalog of topics: what the HTTP application shows and changes."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from robustmq.broker.catalog import Catalog
from robustmq.broker.catalog_api import Topic
from robustmq.broker.placement import Life, Placement
from robustmq.config import Config, default_rule
from robustmq.errors import Refused
from robustmq.meta.records import NODE
from robustmq.policy.topic_rules import TopicRules
from robustmq.workers.meta_link import MetaLink
from robustmq.workers.registrar import Registrar

R = TypeVar("R")


class TopicDesk:
    """A `admin.node.Topics`; it knows what is made, not which topics of rules have a log."""

    def __init__(self, config: Config, link: MetaLink, workers: int) -> None:
        self._link = link
        self._placement = Placement(workers, config.broker_id if config.meta_addrs else None)
        rules = TopicRules(config.topic_rules, default_rule(config.storage))
        self.catalog = Catalog(config, rules, self._placement)
        Registrar(link, config.admin.max_records).follow(self.catalog, self._folded)

    async def create(
        self, tenant: str, name: str, partitions: int, settings: Mapping[str, str]
    ) -> Topic | Refused:
        """See `admin.node.Topics`."""
        return await _answered(
            lambda reply: self.catalog.create(tenant, name, partitions, settings, reply)
        )

    async def delete(self, topic: Topic) -> Refused | None:
        """See `admin.node.Topics`."""
        return await _answered(lambda reply: self.catalog.delete(topic, reply))

    def _folded(self, kinds: Collection[str]) -> None:
        """Know which nodes are live."""
        number, nodes = self._placement.node, self._link.image.nodes
        if NODE not in kinds or number is None:
            return
        live = {
            node.number: Life(node.incarnation, node.workers)
            for node in nodes.values()
            if node.is_broker and node.state == "live"
        }
        if number in live:
            self._placement.update(live)


async def _answered(ask: Callable[[Callable[[R], None]], None]) -> R:
    answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()

    def reply(value: R) -> None:
        if not answer.done():
            answer.set_result(value)

    ask(reply)
    return await answer
