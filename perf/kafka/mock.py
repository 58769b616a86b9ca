"""librdkafka's mock cluster as a broker of its own: `python -m perf.kafka.mock PORT`.

It keeps what it is sent in memory, a little of it, and writes nothing to any disk. It chooses its
own port; who connects to PORT is passed on to it, by bytes, for the first look at its metadata.
"""

import socket
import sys
import threading

from confluent_kafka import Producer


def _copy(source: socket.socket, target: socket.socket) -> None:
    while data := source.recv(1 << 16):
        target.sendall(data)
    target.close()


def main(port: int) -> None:
    """Serve until SIGTERM."""
    producer = Producer({"test.mock.num.brokers": 1})
    (broker,) = producer.list_topics(timeout=10).brokers.values()
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        client = listener.accept()[0]
        server = socket.create_connection((broker.host, broker.port))
        threading.Thread(target=_copy, args=(client, server), daemon=True).start()
        threading.Thread(target=_copy, args=(server, client), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]))
