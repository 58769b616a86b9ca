"""What a partition takes, by the rule that its topic is kept by."""

from typing import Final

from robustmq.config import TopicRule
from robustmq.message.compression import Codec
from robustmq.settings.kafka import KafkaRuntime
from robustmq.shard.produced import Terms

_CODECS: Final = {
    "none": Codec.NONE,
    "gzip": Codec.GZIP,
    "snappy": Codec.SNAPPY,
    "lz4": Codec.LZ4,
    "zstd": Codec.ZSTD,
}
"""What a rule may say of compression but `producer`."""


def default_terms(kafka: KafkaRuntime) -> Terms:
    """Return the terms of topics that say nothing themselves."""
    return Terms(
        max_bytes=kafka.max_message_bytes,
        checks_compressed=kafka.check_compressed,
        most_bytes=kafka.max_uncompressed_bytes,
    )


def terms_of(rule: TopicRule, defaults: Terms) -> Terms:
    """Return the terms of a rule; what it does not say is as in `defaults`."""
    return defaults._replace(
        max_bytes=rule.max_message_bytes or defaults.max_bytes,
        stamps=rule.timestamps == "append",
        before_ms=rule.timestamp_before_ms,
        after_ms=rule.timestamp_after_ms,
        needs_keys=rule.compact,
        codec=_CODECS.get(rule.compression),
    )
