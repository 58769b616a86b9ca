"""How a client of Kafka says who it is: SaslHandshake, then SaslAuthenticate (KIP-43, KIP-152).

After SaslHandshake 0 the tokens of the mechanism travel bare, each with its size before it. A
client that is known authenticates again before its session ends (KIP-368), as the same user.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from robustmq.broker.api import Exchange, Login, Principal, Step
from robustmq.errors import ProtocolError, Refusal, Refused
from robustmq.kafka.errors import ErrorCode
from robustmq.kafka.messages.connection import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
    SaslHandshakeRequest,
    SaslHandshakeResponse,
)
from robustmq.message.tenancy import DEFAULT_TENANT, named_tenant

if TYPE_CHECKING:
    from robustmq.kafka.connection import Connection, Slot

PLAIN: Final = "PLAIN"
BEARER: Final = "OAUTHBEARER"

_MALFORMED: Final = Refused(
    Refusal.BAD_CREDENTIALS, "a message of PLAIN is [user] NUL user NUL password in UTF-8"
)
_FOREIGN: Final = Refused(
    Refusal.NOT_AUTHORIZED, "who authenticates again must be the same user as before"
)

Result = Step | Refused


class Dialogue:
    """What a connection says of its client."""

    __slots__ = ("_client_id", "_connection", "_exchange", "_expires_ms", "_mechanism", "_raw")

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._client_id = ""
        self._mechanism: str | None = None
        self._exchange: Exchange | None = None
        self._raw = False
        self._expires_ms = 0

    @property
    def takes_tokens(self) -> bool:
        """Say whether what comes next is a bare token."""
        return self._raw and self._mechanism is not None

    def is_over(self, now_ms: int) -> bool:
        """Say whether the client had to authenticate again before now."""
        return 0 < self._expires_ms <= now_ms

    def take(
        self,
        slot: "Slot",
        client_id: str,
        request: SaslHandshakeRequest | SaslAuthenticateRequest,
    ) -> None:
        """Take a request; its slot is answered at once or later."""
        self._client_id = client_id
        if isinstance(request, SaslHandshakeRequest):
            self._shake_hands(slot, request)
        elif self._mechanism is None:
            self._refuse(slot, ErrorCode.ILLEGAL_SASL_STATE, "SaslHandshake comes first")
        else:
            self._step(request.auth_bytes, partial(self._answer, slot))

    def token(self, data: bytes) -> None:
        """Take a bare token."""
        self._step(data, self._answer_bare)

    # ------------------------------------------------------------------ the handshake

    def _shake_hands(self, slot: "Slot", request: SaslHandshakeRequest) -> None:
        sasl = self._connection.front.kafka.settings.sasl
        error = ErrorCode.NONE
        if not sasl.enabled or self._mechanism is not None:
            error = ErrorCode.ILLEGAL_SASL_STATE
        elif request.mechanism not in sasl.mechanisms:
            error = ErrorCode.UNSUPPORTED_SASL_MECHANISM
        else:
            self._mechanism = request.mechanism
            self._raw = slot.version == 0
        # Clients read the list in a success, too.
        slot.answer(SaslHandshakeResponse(error_code=error, mechanisms=list(sasl.mechanisms)))
        if error:
            self._fail(f"SaslHandshake: {error.name}, {request.mechanism!r}")

    def _refuse(self, slot: "Slot", error: ErrorCode, why: str) -> None:
        slot.answer(SaslAuthenticateResponse(error_code=error, error_message=why))
        self._fail(why)

    def _fail(self, why: str) -> None:
        delay_ms = self._connection.front.kafka.settings.sasl.failure_delay_ms
        self._connection.fail_later(why, delay_ms)

    # ------------------------------------------------------------------ the proof

    def _step(self, data: bytes, answer: Callable[[Result], None]) -> None:
        if self._mechanism == PLAIN:
            self._plain(data, answer)
            return
        if self._exchange is None:
            self._exchange = self._begin()
        answer(self._exchange.step(data))

    def _begin(self) -> Exchange:
        front = self._connection.front
        login = Login(self._connection.peer, self._client_id)
        assert self._mechanism is not None
        if self._mechanism == BEARER and front.logins.bearer is not None:
            return front.logins.bearer(login, front.tenants)
        exchange = front.logins.exchange(self._mechanism, login, front.tenants)
        if exchange is None:
            raise ProtocolError(0, f"nobody can authenticate by {self._mechanism} here")
        return exchange

    def _plain(self, data: bytes, answer: Callable[[Result], None]) -> None:
        """Take a message of PLAIN (RFC 4616 2)."""
        parts = data.split(b"\0")
        try:
            authority, name, password = (part.decode() for part in parts)
        except ValueError:
            answer(_MALFORMED)
            return
        if not name or authority not in {"", name}:
            answer(_MALFORMED)
            return
        connection = self._connection
        tenants = connection.front.tenants
        tenant, username = named_tenant(name, tenants) or (DEFAULT_TENANT, name)
        login = Login(connection.peer, self._client_id, username, password.encode(), tenant)
        decided = connection.front.logins.log_in(login, partial(self._later, answer))
        if decided is None:
            connection.hold_login()
        else:
            answer(decided if isinstance(decided, Refused) else Step(b"", decided))

    def _later(self, answer: Callable[[Result], None], decided: Principal | Refused) -> None:
        """The password was looked at; the connection may be gone."""
        if not self._connection.ended:
            answer(decided if isinstance(decided, Refused) else Step(b"", decided))
            self._connection.release_login()

    # ------------------------------------------------------------------ what is decided

    def _decide(self, step: Step) -> Step | Refused:
        """Let the user in that has proved who it is."""
        connection = self._connection
        principal, known = step.principal, connection.principal
        if principal is None:
            return step
        self._exchange = self._mechanism = None
        if known is None:
            admitted = connection.front.admit(principal)
            if isinstance(admitted, Refused):
                return admitted
        elif (known.username, known.tenant) != (principal.username, principal.tenant):
            return _FOREIGN
        connection.welcome(principal)
        lifetime_ms = connection.front.kafka.settings.sasl.session_lifetime_ms
        now_ms = connection.front.kafka.now_ms
        ends = [now_ms + lifetime_ms] if lifetime_ms else []
        ends += [step.expires_ms] if step.expires_ms else []
        self._expires_ms = min(ends, default=0)
        return step

    def _answer(self, slot: "Slot", result: Result) -> None:
        decided = self._decide(result) if isinstance(result, Step) else result
        if isinstance(decided, Refused):
            self._connection.count_login(decided)
            self._refuse(slot, ErrorCode.SASL_AUTHENTICATION_FAILED, decided.detail)
            return
        left_ms = 0
        if decided.principal is not None:
            self._connection.count_login(decided.principal)
            if self._expires_ms:
                left_ms = max(self._expires_ms - self._connection.front.kafka.now_ms, 0)
        slot.answer(
            SaslAuthenticateResponse(
                error_code=ErrorCode.NONE, auth_bytes=decided.data, session_lifetime_ms=left_ms
            )
        )

    def _answer_bare(self, result: Result) -> None:
        decided = self._decide(result) if isinstance(result, Step) else result
        if isinstance(decided, Refused):
            # There is no way to say why.
            self._connection.count_login(decided)
            self._fail(decided.detail)
            return
        if decided.principal is not None:
            self._connection.count_login(decided.principal)
        self._connection.send_token(decided.data)
