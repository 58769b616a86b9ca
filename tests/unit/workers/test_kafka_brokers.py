"""What clients of Kafka are told of a node and its cluster, in both ways to advertise."""

import msgspec
import pytest

from robustmq.broker.placement import Life, Placement
from robustmq.config import Config
from robustmq.kafka.protocol import Endpoint
from robustmq.message.core_number import global_core
from robustmq.meta.image import Image
from robustmq.meta.records import CLUSTER, Cluster, Node, Record, encoded, node_record
from robustmq.settings.kafka import KafkaRuntime
from robustmq.workers.kafka_brokers import Brokers

ADDRESSES = {
    "kafka_tcp": "0.0.0.0:9092",
    "kafka_tcp_core_0": "0.0.0.0:9093",
    "kafka_tcp_core_1": "0.0.0.0:9094",
    "kafka_tls": "0.0.0.0:9193",
}


def _config(advertise: str = "node") -> Config:
    kafka = msgspec.convert({"advertise": advertise, "advertised_host": "one"}, KafkaRuntime)
    return msgspec.structs.replace(Config(), broker_id=1, kafka_runtime=kafka)


def _alone(advertise: str = "node", addresses: dict[str, str] | None = None) -> Brokers:
    image = Image(lambda *_: None)
    return Brokers(_config(advertise), addresses or ADDRESSES, Placement(2), image)


def _clustered(advertise: str, ports: dict[str, tuple[int, ...]]) -> Brokers:
    image, placement = Image(lambda *_: None), Placement(2, 1)
    placement.update({1: Life(1, 2), 2: Life(1, 2)})
    other = Node(number=2, store="s", kafka_host="two", kafka_ports=ports, workers=2)
    gone = Node(number=3, store="t", kafka_host="three", kafka_ports=ports, state="fenced")
    cluster = Record(CLUSTER, "", encoded(Cluster(id="an id")))
    image.replace(1, [cluster, node_record(other), node_record(gone)])
    return Brokers(_config(advertise), ADDRESSES, placement, image)


def test_a_node_alone_is_one_broker_with_its_number() -> None:
    brokers = _alone()
    assert brokers.brokers("kafka_tcp") == [Endpoint(1, "one", 9092)]
    assert brokers.brokers("kafka_tls") == [Endpoint(1, "one", 9193)]
    assert brokers.broker_id(1, 1) == 1
    assert brokers.id


def test_each_core_is_a_broker_where_that_is_advertised() -> None:
    brokers = _alone("core")
    assert brokers.brokers("kafka_tcp") == [
        Endpoint(1_024, "one", 9093),
        Endpoint(1_025, "one", 9094),
    ]
    assert brokers.broker_id(1, 1) == 1_025


def test_a_node_without_a_listener_is_no_broker_to_its_clients() -> None:
    assert _alone(addresses={"kafka_tls": "0.0.0.0:9193"}).brokers("kafka_tcp") == []


def test_the_live_nodes_of_a_cluster_are_brokers() -> None:
    brokers = _clustered("node", {"kafka_tcp": (19_092,)})
    assert brokers.brokers("kafka_tcp") == [Endpoint(1, "one", 9092), Endpoint(2, "two", 19_092)]
    assert brokers.id == "an id"


def test_the_cores_of_all_nodes_are_brokers_where_that_is_advertised() -> None:
    brokers = _clustered("core", {"kafka_tcp": (19_092, 19_093, 19_094)})
    told = [(each.broker_id, each.port) for each in brokers.brokers("kafka_tcp")]
    assert told == [(1_024, 9093), (1_025, 9094), (2_048, 19_093), (2_049, 19_094)]


@pytest.mark.parametrize("count", [1, 2])
def test_a_key_has_one_coordinator_whoever_is_asked(count: int) -> None:
    places = []
    for number in (1, 2)[:count]:
        placement = Placement(2, number)
        placement.update({1: Life(1, 2), 2: Life(1, 2)})
        config = msgspec.structs.replace(_config(), broker_id=number)
        brokers = Brokers(config, ADDRESSES, placement, Image(lambda *_: None))
        places.append([brokers.coordinator_of(f"group/default/{n}") for n in range(50)])
        for place in places[-1]:
            assert place is not None
            here = place[0] == number
            assert brokers.number_of(*place) == (place[1] if here else global_core(*place))
    assert all(each == places[0] for each in places)
    assert len({*places[0]}) == 4


def test_nobody_coordinates_before_the_nodes_are_known() -> None:
    brokers = Brokers(_config(), ADDRESSES, Placement(2, 1), Image(lambda *_: None))
    assert brokers.coordinator_of("group/default/g") is None
    assert _alone().coordinator_of("group/default/g") is not None
