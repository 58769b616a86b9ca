"""The look whether the files of the certificates have changed, now and then and when asked."""

from collections.abc import Callable

from robustmq.errors import ConfigError
from robustmq.net.certificates import Certificates
from robustmq.workers import log

_log = log.EventLog("certificates")


class CertificateWatch:
    """Renews the certificates of one process; without any it does nothing.

    `later(seconds, callback)` calls back once.
    """

    def __init__(
        self,
        certificates: Certificates | None,
        later: Callable[[float, Callable[[], None]], object],
        interval_ms: int,
    ) -> None:
        self._certificates = certificates
        self._later = later
        self._seconds = interval_ms / 1_000

    def start(self) -> None:
        """Look now, for they may have changed since they were inherited, and from now on."""
        if self._certificates is not None:
            self.look()
            self._later(self._seconds, self._look_again)

    def look(self, *, at_once: bool = True) -> None:
        """Take what is new, or say why the old ones stay; see `Certificates.renew`."""
        if self._certificates is None:
            return
        try:
            is_new, reason = self._certificates.renew(at_once=at_once), ""
        except ConfigError as error:
            is_new, reason = False, str(error)
        # Said here: within the except clause a traceback would go with it.
        if reason:
            _log.error("the certificates were not renewed", reason=reason)
        elif is_new:
            files = [pair.cert for pair in self._certificates.files]
            _log.info("certificates renewed", files=files)

    def _look_again(self) -> None:
        self.look(at_once=False)
        self._later(self._seconds, self._look_again)
