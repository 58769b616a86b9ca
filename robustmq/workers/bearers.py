"""The keys of bearer tokens, read from the files that the configuration names."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from robustmq.config import Config
from robustmq.errors import ConfigError

if TYPE_CHECKING:
    from robustmq.policy.bearer import Bearers, Key


def read_bearers(config: Config, now_ms: Callable[[], int]) -> "Bearers | None":
    """Return what looks at tokens, None where they are not taken. Raises ConfigError."""
    kafka = config.kafka_runtime
    if not kafka.sasl.enabled or "OAUTHBEARER" not in kafka.sasl.mechanisms:
        return None
    # Not loaded where nobody brings tokens.
    from robustmq.policy.bearer import Bearers, read_key  # noqa: PLC0415

    keys: list[Key] = []
    for path in kafka.oauth.key_files:
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be read: {error.strerror}; kafka_runtime.oauth.key_files names it"
            ) from error
        keys += read_key(path, content)
    return Bearers(kafka.oauth, keys, now_ms)
