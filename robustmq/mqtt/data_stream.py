"""A data stream: a further stream of a client's transport that carries packets of its session.

QUIC gives a client several streams; what is lost on one of them does not hold up the others. The
first, the control stream, is an MQTT connection as over TCP. On the others a client publishes,
subscribes and acknowledges, as EMQX and its clients have it: each answer goes out on the stream
that the request came on, and messages to the client go out on the control stream. Order, topic
aliases and the receive maximum are those of one stream; packet identifiers are the session's.
"""

from typing import TYPE_CHECKING, Final

from robustmq._kernel.intake import ADMISSION
from robustmq.errors import ProtocolError
from robustmq.mqtt import codec
from robustmq.mqtt.connection import Connection
from robustmq.mqtt.packets import (
    Pingreq,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Unsubscribe,
)
from robustmq.mqtt.reasons import Reason

if TYPE_CHECKING:
    from robustmq.mqtt.packets import Packet

_CARRIED: Final = (
    Publish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Unsubscribe,
    Pingreq,
)


class DataStream(Connection):
    """A stream beside `control`, for as long as that one lives.

    Nothing is read before the client is connected. An error of the client's here ends its whole
    connection, the end of the stream does not.
    """

    __slots__ = ("_control",)

    def __init__(self, control: Connection) -> None:
        super().__init__(control.mqtt, control.peer)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._control = control
        self.intake.hold(ADMISSION)
        if control.ended:
            self.ended = True
            self.intake.close()
            return
        if control.data_streams is None:
            control.data_streams = []
        control.data_streams.append(self)
        if control.is_greeted:
            self.begin()

    def begin(self) -> None:
        """The client is connected: its packets are its session's."""
        control = self._control
        session = control.session
        assert session is not None
        self.version = control.version
        self.wording = control.wording
        self.serve(session)
        self.intake.window = session.window
        self.intake.open = True
        self.intake.let_go(ADMISSION)

    def end(self) -> None:
        """The client's connection has ended."""
        self.finish(with_will=False)

    def forget_routes(self) -> None:
        """What was decided for the topics that this client publishes to is void."""
        self._control.forget_routes()

    def on_packet(self, first_byte: int, body: bytes) -> None:
        """A packet that the kernel did not handle by itself."""
        try:
            self._packet(codec.decode(first_byte, body, self.version))
        except ProtocolError as error:
            self.fail(error.reason, error.detail)

    def _packet(self, packet: "Packet") -> None:
        if not isinstance(packet, _CARRIED):
            raise ProtocolError(
                Reason.PROTOCOL_ERROR,
                f"{type(packet).__name__} belongs on the control stream, not on a data stream",
            )
        super()._packet(packet)

    def fail(self, reason: int, detail: str) -> None:
        """The peer broke the protocol: its connection ends."""
        self._control.fail(reason, detail)

    def finish(self, with_will: bool, why: str = "") -> None:
        """End this stream; the connection that it belongs to goes on."""
        del with_will, why
        if self.ended:
            return
        self.ended = True
        self._arrival = None
        self.intake.close()
        self.outbox.drained = None
        self.session = None
        self._publisher = None
        self._subscriber = None
        streams = self._control.data_streams
        if streams is not None and self in streams:
            streams.remove(self)
        self._leave()
