"""Whatever a client sends, and whatever happens meanwhile, both ways of Produce answer the same."""

from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq.broker.api import Principal
from robustmq.broker.partition_api import Appended, Fault, Partition
from robustmq.kafka import codec
from robustmq.kafka.api_keys import ApiKey
from robustmq.kafka.messages.connection import ApiVersionsRequest
from robustmq.message.core_number import global_core
from robustmq.settings.kafka import KafkaRuntime
from tests.kafka_front import Client
from tests.produce_door import (
    NAMES,
    VERSIONS,
    Door,
    Script,
    Spender,
    body,
    both,
    is_flexible,
    produce,
    sized,
)

Step = tuple[str, tuple[int, ...]]

few = st.integers(0, 2)
sends = st.tuples(
    st.just("send"),
    st.tuples(
        st.sampled_from([0, 0, 0, 0, 0, 1, 2, 3, 4, 5]),  # what is odd about it
        few,  # topic
        st.sampled_from([0, 0, 1, 9]),  # partition
        st.sampled_from([0, 70, 126, 127, 128, 16_400]),  # bytes
        st.sampled_from([50, 1_000]),  # timeout
        st.sampled_from([-1, -1, 1, 0]),  # acks
        st.integers(0, 255),  # what is in it
    ),
)
answers = st.tuples(
    st.just("answer"),
    st.tuples(st.integers(0, 5), st.sampled_from([0, 0, 0, *Fault]), st.integers(-1, 1 << 40)),
)
others = st.tuples(
    st.sampled_from(["drop", "make", "want", "forbid", "allow", "move"]), st.tuples(few)
)
rare = st.tuples(
    st.sampled_from(["limit", "unlimit", "login", "ask", "lose", "wait", "wait"]), st.tuples()
)
steps = st.lists(st.one_of(sends, sends, sends, answers, answers, others, rare), max_size=40)


def _odd(kind: int, version: int, data: bytes, content: int) -> bytes:
    """A request with something about it that is not seen in its fields."""
    if kind == 1:
        return data + bytes((content,)) * 40
    if kind == 2:
        return data[: -1 - content]
    if kind == 3 and is_flexible(version):
        return data[:-1] + b"\1\7\3" + bytes((content,)) * 3
    if kind == 4 and is_flexible(version):
        at = 10 + len("me")
        return data[:at] + b"\1\7\1x" + data[at + 1 :]
    if kind == 5:
        at = content % len(data)
        return data[:at] + bytes((content,)) + data[at + 1 :]
    return data


def _send(client: Client, version: int, number: int, arguments: tuple[int, ...]) -> None:
    kind, name, partition, size, timeout_ms, acks, content = arguments
    # A batch with, wherever one looks, what may be the size of what follows.
    records = bytes((content,)) * size
    asked = produce(
        records, topic=NAMES[name], partition=partition, acks=acks, timeout_ms=timeout_ms
    )
    data = body(asked, version, number)
    client.connection.feed(sized(_odd(kind, version, data, content)))


def _happen(door: Door, client: Client, name: str, arguments: tuple[int, ...]) -> None:
    topic = NAMES[arguments[0]] if arguments else ""
    match name:
        case "drop":
            door.topics.drop(topic)
        case "make":
            door.topics.make(topic)
        case "want":
            door.topics.want(topic, 2)
        case "forbid" | "allow":
            door.forbid(topic, is_denied=name == "forbid")
        case "move":
            door.topics.elsewhere[Partition(topic.encode(), 0)] = global_core(2, 0)
            door.topics.version += 1
        case "limit" | "unlimit":
            door.limit(Spender() if name == "limit" else None)
        case "login":
            client.connection.welcome(Principal(f"client {door.topics.version}"))
        case "ask":
            software = ApiVersionsRequest(client_software_name="a", client_software_version="1")
            pieces = codec.encode_request(ApiKey.API_VERSIONS, 3, 50, "me", software)
            client.connection.feed(sized(b"".join(pieces)))
        case _:
            door.wait(50)


@settings(max_examples=100)
@given(st.sampled_from(VERSIONS), st.sampled_from([2, 5, 64]), steps)
def test_both_ways_answer_the_same(version: int, inflight: int, doings: list[Step]) -> None:
    def scenario(door: Door, script: Script) -> list[list[bytes]]:
        client, heard = door.client(), []
        for number, (name, arguments) in enumerate(doings):
            if name == "send":
                _send(client, version, number, arguments)
            elif name == "answer":
                which, fault, base = arguments
                outcome = Appended(fault, base, -1, base // 2, "why" if fault else "")
                script.answer(outcome, which)
            elif name == "lose":
                client.connection.lost()
                client = door.client()
            else:
                _happen(door, client, name, arguments)
            heard += [client.frames(), [b"closed"] if client.closed else []]
            if client.closed:
                client.connection.lost()
                client = door.client()
        door.wait(1_000)
        heard.append(client.frames())
        client.connection.lost()
        return heard

    both(scenario, settings=KafkaRuntime(max_inflight_requests=inflight))
