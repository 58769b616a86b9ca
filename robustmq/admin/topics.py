"""`/api/cluster/topic`: the topics that were made, by Kafka clients or here."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct, field
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from robustmq.admin import api
from robustmq.admin.node import Node
from robustmq.broker.catalog_api import Topic
from robustmq.broker.partition_api import Partition
from robustmq.errors import Refused
from robustmq.message.tenancy import DEFAULT_TENANT

_ENGINE: Final = "robustmq.engine"
_UPSTREAM: Final[Mapping[str, str]] = {
    "memory": "EngineMemory",
    "rocksdb": "EngineRocksDB",
    "segment": "EngineSegment",
}


class Creation(Struct):
    """What `create` is sent; as upstream's, and `config` in Kafka's names."""

    topic_name: str
    tenant: str = DEFAULT_TENANT
    storage_type: str = ""
    source: str = ""
    partition: int = -1
    replication: int = 1
    config: dict[str, str] = field(default_factory=dict)


class Deletion(Struct):
    """What `delete` is sent."""

    topic_name: str
    tenant: str = DEFAULT_TENANT


async def topics(request: Request) -> JSONResponse:
    """`list`: the topics of a tenant, those whose names hold `topic_name`, a page of them."""
    node: Node = request.app.state.node
    most: int = request.app.state.max_page
    limit = api.number(request, "limit", min(api.PAGE, most), most)
    start = max(api.number(request, "page", 1, 1_000_000_000) - 1, 0) * limit
    tenant = request.query_params.get("tenant") or DEFAULT_TENANT
    part = request.query_params.get("topic_name", "")
    catalog = node.topics.catalog
    found = [topic for topic in catalog.walk(tenant) if part in catalog.written(topic)]
    shown = [_info(node, tenant, topic) for topic in found[start : start + limit]]
    return api.answer({"data": shown, "total_count": len(found)})


async def detail(request: Request) -> JSONResponse:
    """`detail`: a topic, how it is kept, and who leads its partitions."""
    node: Node = request.app.state.node
    tenant = request.query_params.get("tenant") or DEFAULT_TENANT
    topic = _found(node, tenant, request.query_params.get("topic_name", ""))
    catalog = node.topics.catalog
    leaders = [catalog.leader(Partition(topic.name, number)) for number in range(topic.partitions)]
    partitions = [
        {
            "partition": number,
            "leader": None if leader is None else leader.node,
            "core": None if leader is None else leader.core,
            "leader_epoch": None if leader is None else leader.epoch,
        }
        for number, leader in enumerate(leaders)
    ]
    config = {each.name: each.value for each in catalog.settings(topic)}
    return api.answer(
        {"topic_info": _info(node, tenant, topic), "config": config, "partitions": partitions}
    )


async def create(request: Request) -> JSONResponse:
    """`create`: make a topic; every worker knows it with the answer, other nodes a moment later."""
    wanted = await api.body(request, Creation)
    node: Node = request.app.state.node
    if wanted.replication not in {-1, 1}:
        raise api.Wrong(400, "a partition has one replica here: replication must be 1")
    config = dict(wanted.config)
    if wanted.storage_type:
        config[_ENGINE] = wanted.storage_type
    partitions = wanted.partition or -1
    made = await node.topics.create(wanted.tenant, wanted.topic_name, partitions, config)
    if isinstance(made, Refused):
        raise api.refused(made)
    return api.answer("success", await node.settled())


async def delete(request: Request) -> JSONResponse:
    """`delete`: remove a topic with all that is in it."""
    wanted = await api.body(request, Deletion)
    node: Node = request.app.state.node
    refused = await node.topics.delete(_found(node, wanted.tenant, wanted.topic_name))
    if refused is not None:
        raise api.refused(refused)
    return api.answer("success", await node.settled())


def _found(node: Node, tenant: str, name: str) -> Topic:
    topic = node.topics.catalog.find(tenant, name)
    if topic is None:
        raise api.Wrong(404, f"there is no topic with the name {name[:256]!r}")
    return topic


def _info(node: Node, tenant: str, topic: Topic) -> dict[str, Any]:
    return {
        "topic_id": topic.id.hex(),
        "tenant": tenant,
        "topic_name": node.topics.catalog.written(topic),
        "storage_type": _UPSTREAM[topic.rule.engine],
        "source": "Rule" if topic.is_shared else "Kafka",
        "partition": topic.partitions,
        "replication": 1,
        "config": dict(topic.settings),
    }


ROUTES: Final[list[BaseRoute]] = [
    Route("/cluster/topic/list", topics),
    Route("/cluster/topic/detail", detail),
    Route("/cluster/topic/create", create, methods=["POST"]),
    Route("/cluster/topic/delete", delete, methods=["POST"]),
]
