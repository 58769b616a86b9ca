"""The configuration of sessions in a cluster: `[mqtt_runtime.takeover]`."""

from typing import Annotated

from msgspec import Struct

from robustmq.settings.bounds import between


class MqttTakeover(Struct, frozen=True, kw_only=True):
    """`[mqtt_runtime.takeover]`: How nodes of a cluster find and take over each other's sessions.

    A client waits at most protocol.connect_timeout_ms until it is known where its session is and
    the cluster has what must be kept of it.

    retry_ms: Milliseconds until the cluster is asked again when it has not answered in time, or
        when somebody else is about to take a session over.
    changes_at_once: Changes of sessions that a core has on the way to the cluster; others wait.
    adopt_at_once: Sessions of a node that is gone which a core takes over at the same time.
    bequests_at_once: Sessions that others have by now to whose nodes a core, when it is back,
        hands at the same time what they are owed here; others wait on its disk.
    bequest_page_bytes: How much of it is on its way for each of them; one message may be larger.
    """

    retry_ms: Annotated[int, between(10, 60_000)] = 200
    changes_at_once: Annotated[int, between(1, 10_000_000)] = 10_000
    adopt_at_once: Annotated[int, between(1, 1_000_000)] = 1_000
    bequests_at_once: Annotated[int, between(1, 10_000)] = 16
    bequest_page_bytes: Annotated[int, between(1_024, 67_108_864)] = 262_144
