"""Kafka on one core of `partition_world`: handlers are asked, and what they answer is kept."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from robustmq.broker.api import Broker, Principal
from robustmq.broker.ledger_api import Ledger
from robustmq.broker.timers import Timer
from robustmq.kafka.call import Call
from robustmq.kafka.dispatch import Handler, handlers
from robustmq.kafka.protocol import Endpoint, Kafka
from robustmq.kafka.rights import Operation, Resource
from robustmq.kafka.schema import Message
from robustmq.settings.kafka import KafkaRuntime
from tests.partition_world import Core, World

Answer = TypeVar("Answer", bound=Message)

CLIENT = Principal("client")


class _Broker:
    """As much of a broker as these handlers ask."""

    def __init__(self, core: Core) -> None:
        self.turn = core.turn
        self._core = core

    def at(self, when_ms: int, callback: Callable[[], None]) -> Timer:
        """Call back."""
        return self._core.timers.at(when_ms, callback)


class _Cluster:
    """A node with the number 1, and another with the number 2."""

    id = "cluster"
    node = 1
    lives = 0

    def coordinator_of(self, key: str) -> tuple[int, int] | None:
        """It is always here."""
        del key
        return self.node, 0

    def brokers(self, listener: str) -> Sequence[Endpoint]:
        """Return both."""
        return [Endpoint(number, f"{listener}{number}.example", 9092) for number in (1, 2)]

    def broker_id(self, node: int, core: int) -> int:
        """The number of the node."""
        del core
        return node

    def number_of(self, node: int, core: int) -> int:
        """Cores of this node have their index."""
        del node
        return core


class Desk:
    """The handlers of core `core`; `denied` holds what nobody may."""

    def __init__(self, world: World, core: int = 0, settings: KafkaRuntime | None = None) -> None:
        self.world = world
        self.denied: set[tuple[Operation, Resource, str]] = set()
        self.core = world.cores[core]
        self.kafka = Kafka(
            cast("Broker", _Broker(self.core)),
            settings or KafkaRuntime(),
            core=core,
            cluster=_Cluster(),
            partitions=self.core.router,
            catalog=world.topics,
            ledger=cast("Ledger", None),
            authority=self,
        )
        self.handlers: Mapping[int, Handler] = handlers(self.kafka)

    version = 0

    def may(
        self, principal: Principal, operation: Operation, resource: Resource, name: str
    ) -> bool:
        """Say whether it is not denied."""
        del principal
        return (operation, resource, name) not in self.denied

    def send(
        self, api: int, version: int, request: Message, principal: Principal = CLIENT
    ) -> list[Any]:
        """Ask; what is answered comes into the list that is returned."""
        answers: list[Any] = []
        call = Call[Any](
            api,
            version,
            "client",
            principal,
            request,
            self.core.turn.now_ms,
            answers.append,
            listener="tcp",
        )
        self.handlers[api](call)
        return answers

    def ask(
        self,
        api: int,
        version: int,
        request: Message,
        kind: type[Answer],
        principal: Principal = CLIENT,
    ) -> Answer:
        """Ask, let the world settle, and return the one answer."""
        answers = self.send(api, version, request, principal)
        self.world.settle()
        (answer,) = answers
        assert isinstance(answer, kind)
        return answer
