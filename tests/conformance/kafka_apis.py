"""Writes docs/kafka-apis.md: which requests of Kafka are spoken, and in which versions."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from robustmq.kafka.api_keys import APIS, Api, ApiKey
from tests.conformance.page import keep

ROOT: Final = Path(__file__).resolve().parents[2]
DOCUMENT: Final = Path("docs/kafka-apis.md")

_HEAD: Final = """\
# Kafka: APIs and versions

What ApiVersions answers (`kafka-broker-api-versions.sh` shows it, too). A client takes the newest
version that both know; a version that is not listed ends the connection, as in Kafka. ApiVersions
itself is the exception: a version that is not known is answered with error 35 and the versions that
are. *Flexible* is the first version with compact lengths and tagged fields (KIP-482). Record
batches are those of magic 2, the only ones since Kafka 4.

The ranges are Kafka 4's where clients depend on them: some versions of librdkafka turn a feature
off when one exact version is missing.

This page is written by `scripts/conformance`; a test fails when it is stale.

| key | API | versions | flexible | notes |
|---|---|---|---|---|
"""

_NOTES: Final[Mapping[int, str]] = {
    ApiKey.PRODUCE: "0 to 2 are listed for older clients, which look for them before they"
    " compress, and refused",
    ApiKey.FETCH: "13 and later name topics by id",
    ApiKey.LIST_OFFSETS: "7 asks for the record with the latest time",
    ApiKey.FIND_COORDINATOR: "groups and transactional ids",
    ApiKey.JOIN_GROUP: "members are named by the server since 4, static members since 5",
    ApiKey.SASL_HANDSHAKE: "0 has no SaslAuthenticate behind it: tokens follow as they are",
    ApiKey.API_VERSIONS: "its answer has the oldest header in all versions",
    ApiKey.ADD_PARTITIONS_TO_TXN: "4 and later are between brokers",
    ApiKey.CONSUMER_GROUP_HEARTBEAT: "the protocol of KIP-848",
    ApiKey.CONSUMER_GROUP_DESCRIBE: "the protocol of KIP-848",
}


def document() -> str:
    """Return the whole page."""
    return _HEAD + "".join(_row(api) for _, api in sorted(APIS.items()))


def _row(api: Api) -> str:
    oldest, newest = api.advertised
    versions = str(oldest) if oldest == newest else f"{oldest} to {newest}"
    flexible = "no version" if api.flexible is None else str(api.flexible)
    return f"| {api.key} | {api.name} | {versions} | {flexible} | {_NOTES.get(api.key, '')} |\n"


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Write the page, or with `--check` say whether it is up to date; return the status."""
    return keep(root / DOCUMENT, document(), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
