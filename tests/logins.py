"""Logins for tests: passwords are looked at when the test says so, nonces are counted."""

from collections.abc import Callable, Sequence
from itertools import count

from robustmq.policy.logins import Logins
from robustmq.policy.users import Users
from robustmq.settings.users import MqttAuth, User

Waiting = list[tuple[Callable[[], bool], Callable[[bool], None]]]


class ScriptedLogins(Logins):
    """Checks wait in `waiting` until `look`; more than `most` are refused."""

    def __init__(
        self, settings: MqttAuth | None = None, users: Sequence[User] = (), most: int = 1_000
    ) -> None:
        self.waiting: Waiting = []
        numbers = count(1)

        def later(check: Callable[[], bool], done: Callable[[bool], None]) -> bool:
            if len(self.waiting) >= most:
                return False
            self.waiting.append((check, done))
            return True

        super().__init__(
            settings or MqttAuth(),
            Users(users),
            later=later,
            nonce=lambda: f"nonce{next(numbers)}",
            secret=b"secret",
        )

    def look(self) -> list[bool]:
        """Check every password that waits; returns what was found."""
        found = []
        while self.waiting:
            check, done = self.waiting.pop(0)
            found.append(check())
            done(found[-1])
        return found
