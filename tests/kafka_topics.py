"""Handlers of topics, settings, ACLs and quotas, over records that are folded at once."""

from typing import Any, TypeVar

from robustmq.broker.api import Principal
from robustmq.broker.rights import Rights
from robustmq.config import Config
from robustmq.kafka.codec import encode_response
from robustmq.kafka.schema import Message
from robustmq.meta.records import CLIENT_QUOTA, GRANT
from robustmq.policy.access import Access
from robustmq.policy.authority import Authority
from robustmq.policy.client_quota import ClientQuotas
from robustmq.policy.grants import Grants
from tests.catalogs import Group, Made
from tests.kafka_desk import Desk
from tests.partition_world import World

ROOT = Principal("c", "root", "10.0.0.1", superuser=True)
ALICE = Principal("c", "alice", "10.0.0.2")

Answer = TypeVar("Answer", bound=Message)


class Bureau:
    """A core whose clients are asked for their rights; `group` has what is recorded."""

    def __init__(self, config: Config | None = None, access: Access | None = None) -> None:
        self.group = Group()
        self.made = Made(self.group, config=config or Config())
        self.access = access or Access()
        self.access.grants.changed = self.access.forget
        self.quotas = ClientQuotas(_no_ledger, 1_000)
        self.group.folds[GRANT] = [self.access.grants]
        self.group.folds[CLIENT_QUOTA] = [self.quotas]
        self._authority = Authority(self.access)
        self._desk = Desk(World(1), settings=self.made.config.kafka_runtime)
        kafka = self._desk.kafka
        kafka.catalog = self.made.catalog
        kafka.rights = Rights(self.access.grants, self.quotas, lambda: self.group)
        kafka._authority = self._authority

    @property
    def grants(self) -> Grants:
        """What was granted."""
        return self.access.grants

    def ask(
        self,
        api: int,
        version: int,
        request: Message,
        kind: type[Answer],
        principal: Principal = ROOT,
    ) -> Answer:
        """Ask; the answer can be said in the version that was asked for."""
        answers: list[Any] = self._desk.send(api, version, request, principal)
        self.grants.settle()
        (answer,) = answers
        assert isinstance(answer, kind)
        encode_response(api, version, 1, answer)
        return answer


def _no_ledger() -> Any:  # noqa: ANN401
    raise NotImplementedError
