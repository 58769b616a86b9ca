"""Topics of one core over a metadata group that folds at once."""

from collections.abc import Callable, Sequence

from robustmq.broker.catalog import Catalog
from robustmq.broker.catalog_api import Topic
from robustmq.broker.placement import Placement
from robustmq.config import Config, TopicRule
from robustmq.errors import Refusal, Refused
from robustmq.meta.commands import Expectation
from robustmq.meta.image import Folded
from robustmq.meta.records import SHARD, TOPIC, Record, decoded
from robustmq.policy.topic_rules import TopicRules


class Group:
    """The metadata group of one node: conditional changes, folded at once."""

    def __init__(self) -> None:
        self.index = 0
        self.rows: dict[tuple[str, str], int] = {}
        self.folds: dict[str, list[Folded]] = {}
        self.ids = 0
        self.refusal: Refused | None = None

    def change(
        self,
        records: Sequence[Record],
        expected: Sequence[Expectation],
        done: Callable[[Refused | None], None],
    ) -> None:
        self.index += 1
        if self.refusal is not None:
            done(self.refusal)
            return
        if any(self.rows.get((each.kind, each.name), 0) != each.index for each in expected):
            done(Refused(Refusal.NOT_AUTHORIZED, "it is another one"))
            return
        for kind, name, value in ((each.kind, each.name, each.value) for each in records):
            if value is None:
                self.rows.pop((kind, name), None)
            else:
                self.rows[kind, name] = self.index
            for fold in self.folds.get(kind, ()):
                fold.apply(name, None if value is None else decoded(value), self.index)
        done(None)

    def new_id(self) -> bytes:
        self.ids += 1
        return self.ids.to_bytes(16, "big")


class Made:
    """A catalog of one core, with what it decides by."""

    def __init__(
        self, group: Group, *rules: TopicRule, node: int | None = None, config: Config | None = None
    ) -> None:
        self.config = config or Config(topic_rules=rules, broker_id=node or 1)
        self.rules = TopicRules(self.config.topic_rules)
        self.placement = Placement(4, node)
        self.catalog = Catalog(self.config, self.rules, self.placement)
        self.catalog.registrar = group
        group.folds.setdefault(TOPIC, []).append(self.catalog)
        group.folds.setdefault(SHARD, []).append(self.catalog.leaders)
        self.answers: list[Topic | Refused | None] = []

    def create(
        self, name: str, partitions: int = -1, tenant: str = "default", **settings: str
    ) -> object:
        named = {key.replace("_", "."): value for key, value in settings.items()}
        self.catalog.create(tenant, name, partitions, named, self.answers.append)
        return self.answers[-1]

    def topic(self, name: str, tenant: str = "default") -> Topic:
        found = self.catalog.find(tenant, name)
        assert found is not None
        return found
