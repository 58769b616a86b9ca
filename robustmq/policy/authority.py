"""What somebody may do, decided once and remembered until other rules or grants hold."""

from typing import Final

from robustmq.policy.access import Access
from robustmq.policy.principal import Principal

REMEMBERED: Final = 65_536
"""Decisions that are remembered; when there are more, all of them are forgotten."""


class Authority:
    """Answers by one look-up what `Access.allows` has decided before."""

    def __init__(self, access: Access, remembered: int = REMEMBERED) -> None:
        self._access = access
        self._remembered = remembered
        self._version = access.version
        self._known: dict[tuple[Principal, int, int, str], bool] = {}

    @property
    def version(self) -> int:
        """Another number whenever it may decide otherwise than before."""
        return self._access.version

    def may(self, principal: Principal, operation: int, resource: int, name: str) -> bool:
        """Say whether it is allowed; the numbers are those of `grants`."""
        if not self._access.denies:
            return True
        if self._access.version != self._version or len(self._known) >= self._remembered:
            self._version = self._access.version
            self._known.clear()
        asked = (principal, operation, resource, name)
        known = self._known.get(asked)
        if known is None:
            known = self._known[asked] = self._access.allows(principal, operation, resource, name)
        return known
