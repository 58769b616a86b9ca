"""Several subscriptions of one session that match one message (MQTT5 3.3.4)."""

from collections.abc import Sequence

from robustmq.broker.api import Options


def copies(options: Sequence[Options], separate: bool) -> Sequence[Options]:
    """Return what of a message a session gets: one copy for all that match, or one for each.

    In the second case that of the highest QoS comes first, and the order is always the same.
    """
    if not separate or len(options) == 1:
        return [overlap(options)]
    return sorted(options, key=lambda each: (-each.qos, each[1:]))


def overlap(options: Sequence[Options]) -> Options:
    """Combine subscriptions of a session that match into one copy.

    It has the highest QoS and all identifiers, and is suppressed for its own publisher only if
    all of them say so.
    """
    if len(options) == 1:
        return options[0]
    return Options(
        qos=max(option.qos for option in options),
        no_local=all(option.no_local for option in options),
        retain_as_published=any(option.retain_as_published for option in options),
        identifier=b"".join(option.identifier for option in options),
    )
