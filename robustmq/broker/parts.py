"""What one core's broker is made of."""

from typing import NamedTuple

from robustmq.broker.catalog import Catalog
from robustmq.broker.cursors import Cursors
from robustmq.broker.delayed import Delayed
from robustmq.broker.estates import Estates
from robustmq.broker.exclusives import Exclusives
from robustmq.broker.handovers import Handovers
from robustmq.broker.inbox import Inbox
from robustmq.broker.interests import Interests
from robustmq.broker.kept_logs import KeptLogs
from robustmq.broker.legacies import Legacies
from robustmq.broker.log_parts import LogParts
from robustmq.broker.orphans import Orphans
from robustmq.broker.partitions import Partitions
from robustmq.broker.retained import Retained
from robustmq.broker.retained_scans import RetainedScans
from robustmq.broker.router import Router
from robustmq.broker.shares import Shares
from robustmq.broker.state import State
from robustmq.broker.subscriptions import Subscriptions
from robustmq.broker.taps import Taps
from robustmq.broker.topic_logs import TopicLogs
from robustmq.policy.admission import Admission
from robustmq.policy.topics import Topics


class Parts(NamedTuple):
    """The parts between which a core routes; each decides in its own matter."""

    state: State
    admission: Admission
    topics: Topics
    interests: Interests
    orphans: Orphans
    router: Router
    retained: Retained
    scans: RetainedScans
    subscriptions: Subscriptions
    shares: Shares
    exclusives: Exclusives
    handovers: Handovers
    inbox: Inbox
    cursors: Cursors
    estates: Estates
    legacies: Legacies
    delayed: Delayed
    logs: TopicLogs
    catalog: Catalog
    kept_logs: KeptLogs
    log_parts: LogParts
    taps: Taps
    partitions: Partitions
