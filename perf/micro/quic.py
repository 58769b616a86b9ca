"""What QUIC costs beside TCP: the CPU time of a real worker per message, per handshake, per byte.

Run with `python -m perf.micro.quic [messages]`. One worker and one client, which takes its time;
what is counted is the worker's own user and system time. A lone message is a PUBLISH of QoS 1 and
100 bytes whose PUBACK is awaited; those in bursts are of QoS 0, 50 at a time.
"""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

from robustmq.mqtt import codec
from robustmq.mqtt.packets import V5, Publish
from tests import authority
from tests.integration.quic_client import QuicClient
from tests.integration.supervised import Node
from tests.integration.wire_client import Client

PAYLOAD = bytes(100)
BURST = 50
HANDSHAKES = 50
BULK = 1 << 18
BULK_TIMES = 40


def lone(client: Client, count: int) -> None:
    """Publish and await each answer."""
    for _ in range(count):
        client.publish("t", PAYLOAD, 1)


def bursts(client: Client, count: int) -> None:
    """Publish many at once."""
    burst = codec.encode(Publish(b"t", PAYLOAD), V5) * BURST
    for _ in range(count // BURST):
        client.send_bytes(burst)
        client.ping()


def bulk(client: Client, count: int) -> None:
    """Publish large messages, `count` in bytes of 100."""
    for _ in range(max(count * len(PAYLOAD) // BULK, 1)):
        client.publish("t", bytes(BULK), 1)


def cost(worker: psutil.Process, work: Callable[[], None]) -> float:
    """Return the microseconds of CPU that the worker spends meanwhile."""
    before = worker.cpu_times()
    work()
    after = worker.cpu_times()
    return float(after.user - before.user + after.system - before.system) * 1e6


def main() -> None:
    """Measure both transports with every kind of work."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    with tempfile.TemporaryDirectory() as directory:
        keys = authority.made(Path(directory) / "keys")
        settings = (
            f'mqtt_runtime.tls.tls_cert=["{keys / "server.pem"}"]',
            f'mqtt_runtime.tls.tls_key=["{keys / "server.key"}"]',
        )
        data = Path(directory) / "data"
        node = Node(data, workers=1, module="robustmq.cli.supervisor", settings=settings)
        try:
            worker = psutil.Process(node.ready().children()["worker 0"])
            for name, kind in (("tcp", Client), ("quic", QuicClient)):
                with kind(node, name) as client:
                    for work in (lone, bursts):
                        spent = cost(worker, partial(work, client, count)) / count
                        print(f"{name:5} {work.__name__:8} {spent:8.1f} us/message")
                    spent = cost(worker, partial(bulk, client, BULK_TIMES * count))
                    mebibytes = BULK_TIMES * count * len(PAYLOAD) / (1 << 20)
                    print(f"{name:5} bulk     {spent / mebibytes / 1_000:8.1f} ms/MiB")
                spent = cost(worker, partial(opened, node, kind)) / HANDSHAKES / 1_000
                print(f"{name:5} connect  {spent:8.2f} ms/connection")
        finally:
            node.close()


def opened(node: Node, kind: type[Client]) -> None:
    """Connect and end, one after another."""
    for number in range(HANDSHAKES):
        kind(node, f"c{number}").close()


if __name__ == "__main__":
    main()
