"""What a worker answers when the administration asks it, by the kind of question."""

from robustmq import metrics
from robustmq.broker.delayed_view import DelayedView
from robustmq.mqtt.announcements import Announcements
from robustmq.mqtt.census import Census
from robustmq.mqtt.protocol import Mqtt
from robustmq.mqtt.slow_subscribers import SlowSubscribers
from robustmq.workers.bridges import Bridges
from robustmq.workers.links import Links
from robustmq.workers.questions import Ask, listing


def answers(
    cells: memoryview,
    *,
    links: Links,
    mqtt: Mqtt,
    delayed: DelayedView,
    slow: SlowSubscribers,
    announcements: Announcements,
    bridges: Bridges,
) -> dict[str, Ask]:
    """Return what takes each kind of question; `cells` are the counters of the worker."""
    sessions = mqtt.sessions
    census = Census(sessions)
    return {
        "cluster.links": listing(links.walk, lambda: links.others),
        "mqtt.delayed": listing(delayed.walk, lambda: cells[metrics.DELAYED_MESSAGES]),
        "mqtt.delayed.delete": delayed.delete,
        "mqtt.slow_subscribers": slow.listed,
        "mqtt.slow_subscribers.clear": slow.clear,
        "mqtt.announce": announcements.asked,
        "mqtt.bridges": listing(bridges.walk, lambda: len(bridges.lines)),
        "mqtt.clients": listing(census.clients, lambda: mqtt.connections),
        "mqtt.sessions": listing(census.sessions, lambda: len(sessions)),
        "mqtt.subscriptions": listing(census.subscriptions, lambda: cells[metrics.SUBSCRIPTIONS]),
    }
