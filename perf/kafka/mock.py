"""librdkafka's mock cluster as a broker of its own: `python -m perf.kafka.mock PORT_FILE`.

It keeps what it is sent in memory, a little of it, and writes nothing to any disk.
"""

import sys
import time
from pathlib import Path

from confluent_kafka import Producer

from perf.kafka.traffic import TOPIC


def main(port_file: str) -> None:
    """Serve until SIGTERM; the port is written into a file."""
    producer = Producer({"test.mock.num.brokers": 1})
    brokers = producer.list_topics(TOPIC, timeout=10).brokers
    (broker,) = brokers.values()
    draft = Path(f"{port_file}.draft")
    draft.write_text(str(broker.port))
    draft.rename(port_file)
    while True:
        time.sleep(1.0)


if __name__ == "__main__":
    main(sys.argv[1])
