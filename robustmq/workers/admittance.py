"""Who may come to a core, and how much of it they may use: users, bans, quotas, rates."""

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

from robustmq.broker.core import Core
from robustmq.config import Config
from robustmq.errors import ConfigError
from robustmq.meta.image import Image
from robustmq.meta.records import CLIENT_QUOTA
from robustmq.policy.bans import ANY_TENANT, KIND, Bans, record_of
from robustmq.policy.client_quota import ClientQuotas
from robustmq.policy.connection_quota import ConnectionQuota
from robustmq.policy.credentials import Change, CredentialBook
from robustmq.policy.flapping import Flapping
from robustmq.policy.gate import Gate
from robustmq.policy.logins import Logins
from robustmq.policy.principal import Principal
from robustmq.policy.publish_quota import PublishQuota
from robustmq.policy.users import KIND as USER
from robustmq.policy.users import AddedUsers, Users
from robustmq.settings.limits import Ban
from robustmq.shm.ledger import LedgerRow
from robustmq.workers import log
from robustmq.workers.bearers import read_bearers
from robustmq.workers.hashing import Hashing
from robustmq.workers.inheritance import Inheritance

_NONCE_BYTES: Final = 18

_log = log.EventLog("admittance")

Notify: TypeAlias = Callable[[str, dict[str, Any]], None]
"""Tells the server process something: a kind, and what there is to say."""


class Admittance:
    """The policies that stand before a core's protocols.

    `resume(callback)` calls back on the loop, from any thread.
    """

    def __init__(
        self,
        inheritance: Inheritance,
        core: Core,
        resume: Callable[[Callable[[], None]], None],
        notify: Notify,
    ) -> None:
        config = inheritance.config
        mqtt = config.mqtt_runtime
        self._inheritance = inheritance
        self._now_ms = lambda: core.turn.now_ms
        self._notify = notify
        self._row: LedgerRow | None = None
        self._hashing = Hashing(resume, mqtt.auth.max_pending_logins)
        self._configured = config.users
        self.added_users = AddedUsers()
        self.logins = Logins(
            mqtt.auth,
            self._users(),
            later=self._hashing.later,
            nonce=lambda: secrets.token_urlsafe(_NONCE_BYTES),
            secret=secrets.token_bytes(),
        )
        self.added_users.changed = self._user_changed
        self.bans = Bans(config.blacklist)
        self.gate = Gate(
            self.bans,
            Flapping(mqtt.flapping_detect),
            ConnectionQuota(mqtt.limit.cluster, mqtt.listener, self._ledger),
            core.turn.row,
            self._earned,
        )
        rates = PublishQuota(
            mqtt.limit.client,
            mqtt.listener,
            config.publish_limits,
            turn=core.turn,
            at=core.at,
            ledger=self._ledger,
        )
        self.rates = rates if rates.is_used else None
        self._bearers(config)
        self.quotas = ClientQuotas(self._ledger, config.kafka_runtime.max_throttle_ms)

    def fold(self, image: Image, banned: Callable[[str | None], None]) -> None:
        """Have bans and users be as the image says.

        `banned` hears of each new ban: of which identity, None: of whoever else it is for.
        """

        def added(ban: Ban) -> None:
            named = ban.blacklist_type == "ClientId" and ban.tenant != ANY_TENANT
            who = Principal(ban.resource_name, tenant=ban.tenant)
            banned(who.identity if named else None)

        self.bans.added = added
        image.folds[KIND] = self.bans
        image.folds[USER] = self.added_users
        image.folds[CLIENT_QUOTA] = self.quotas

    def credentials(self, change: Change) -> CredentialBook:
        """Return the book of users' credentials; `change` changes records."""
        return CredentialBook(lambda: self._configured, self.added_users, change)

    def replace(self, config: Config) -> None:
        """Let others come from now on: the configuration was read again."""
        self._configured = config.users
        self.logins.replace(config.mqtt_runtime.auth, self._users())
        self._bearers(config)

    def _bearers(self, config: Config) -> None:
        """Believe the tokens that the configuration says; without usable keys as before."""
        try:
            bearers = read_bearers(config, self._now_ms)
        except ConfigError as error:
            _log.error("keys of tokens cannot be used", reason=str(error))
        else:
            begin = partial(bearers.begin, self.logins) if bearers is not None else None
            self.logins.bearer = begin

    def _users(self) -> Users:
        return Users(self._configured, self.added_users.by_name)

    def _user_changed(self, tenant: str | None, username: str | None) -> None:
        self.logins.changed(self._users(), tenant, username)

    def close(self) -> None:
        """Look at no more passwords."""
        self._hashing.close()

    def _ledger(self) -> LedgerRow:
        if self._row is None:
            self._row = self._inheritance.ledger.of(self._inheritance.index)
        return self._row

    def _earned(self, ban: Ban) -> None:
        self._notify(KIND, {"name": ban.name, **record_of(ban)})
