"""The configuration of transactions: `[kafka_runtime.transactions]`."""

from typing import Annotated

from msgspec import Struct

from robustmq.settings.bounds import between


class KafkaTransactions(Struct, frozen=True, kw_only=True):
    """`[kafka_runtime.transactions]`: Producers with a transactional id.

    max_timeout_ms: The longest timeout that a producer may ask for: a transaction that is open
        for longer than its producer's timeout is aborted, and its producer fenced (Kafka:
        transaction.max.timeout.ms).
    id_expiration_ms: Milliseconds after which a transactional id that nobody uses is forgotten
        (Kafka: transactional.id.expiration.ms).
    max_ids: Transactional ids that a core coordinates; further ones are refused.
    max_waiting: Requests for one transactional id that wait for each other; a client is told to
        ask again when there are more.
    max_partitions: Partitions and consumer groups that take part in one transaction.
    load_at_once: Pages of transactions that a core reads at the same time when it starts.
    look_again_ms: Milliseconds after nodes have come or gone until a core looks at the pages of
        transactions again: longer than it takes until all nodes know.
    retry_ms: Milliseconds until those who take part in a transaction, and have not answered, are
        told of its end again, and what could not be read is read again; each time twice as long.
    max_retry_ms: The longest of these.
    """

    max_timeout_ms: Annotated[int, between(1_000, 2_147_483_647)] = 900_000
    id_expiration_ms: Annotated[int, between(1_000, 31_536_000_000)] = 604_800_000
    max_ids: Annotated[int, between(1, 100_000_000)] = 100_000
    max_waiting: Annotated[int, between(1, 100_000)] = 100
    max_partitions: Annotated[int, between(1, 1_000_000)] = 10_000
    load_at_once: Annotated[int, between(1, 10_000)] = 64
    look_again_ms: Annotated[int, between(10, 3_600_000)] = 10_000
    retry_ms: Annotated[int, between(10, 60_000)] = 100
    max_retry_ms: Annotated[int, between(10, 3_600_000)] = 10_000
