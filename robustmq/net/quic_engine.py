"""The QUIC engine of one connection: aioquic's, with the few things it leaves no choice about.

This is the one place that reaches below aioquic's public surface; each thing that it relies on
there has a test, so that a new version that moves it is noticed.
"""

from typing import TYPE_CHECKING, Final

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import Limit, QuicConnection, QuicConnectionState
from aioquic.quic.packet import QuicFrameType
from aioquic.quic.stream import QuicStream

from robustmq.net.quic_steering import ConnectionIds

if TYPE_CHECKING:
    from aioquic.quic.packet_builder import QuicPacketBuilder
    from aioquic.quic.recovery import QuicPacketSpace

_RENEW: Final = 2
"""Credit is announced when so much of the window, as a divisor, can be given anew."""


class Engine(QuicConnection):
    """A server's connection that names its worker in its ids and gives credit for what was taken.

    aioquic doubles the credit of a peer whenever half of it was used, taken or not. Here a stream
    may send `max_stream_data` bytes beyond what `consume` was told, all of them together
    `max_data` (RFC 9000 4.1), and there are `streams` bidirectional ones at a time, no others.
    """

    def __init__(
        self,
        configuration: QuicConfiguration,
        ids: ConnectionIds,
        streams: int,
        *,
        original: bytes,
        retried: bytes | None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original,
            retry_source_connection_id=retried,
        )
        self._ids = ids
        self._streams_consumed: dict[int, int] = {}
        self._consumed = 0
        first = self._host_cids[0]
        first.cid = ids.issue()
        first.stateless_reset_token = ids.reset_token(first.cid)
        self.host_cid = self._local_initial_source_connection_id = first.cid
        self._local_max_streams_bidi = Limit(
            QuicFrameType.MAX_STREAMS_BIDI, "max_streams_bidi", streams
        )
        self._local_max_streams_uni = Limit(QuicFrameType.MAX_STREAMS_UNI, "max_streams_uni", 0)

    def consume(self, stream_id: int, length: int) -> bool:
        """Give credit for bytes that were taken; True when some is worth announcing now."""
        self._consumed += length
        total = self._streams_consumed.get(stream_id, 0) + length
        self._streams_consumed[stream_id] = total
        window = self._configuration.max_stream_data
        stream = self._streams.get(stream_id)
        limit = stream.max_stream_data_local if stream is not None else total + window
        return (
            total + window - limit >= window // _RENEW
            or self._consumed + self._configuration.max_data - self._local_max_data.value
            >= self._configuration.max_data // _RENEW
        )

    def release(self, stream_id: int) -> None:
        """Give credit for what has come on a stream that nobody reads any more."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            taken = self._streams_consumed.get(stream_id, 0)
            self._consumed += max(stream.receiver.highest_offset - taken, 0)
            self._streams_consumed[stream_id] = max(stream.receiver.highest_offset, taken)

    def holds(self, stream_id: int) -> bool:
        """Say whether a stream is open in some direction; forgets it otherwise."""
        if stream_id in self._streams:
            return True
        self._streams_consumed.pop(stream_id, None)
        return False

    def unsent(self, stream_id: int) -> int:
        """Bytes of a stream that the peer has not acknowledged; 0 for one that has ended."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return 0
        sender = stream.sender
        return sender._buffer_stop - sender._buffer_start

    def delivered(self, stream_id: int) -> bool:
        """Say whether the peer has all of a stream and its end, or wants no more of it."""
        stream = self._streams.get(stream_id)
        return stream is None or stream.sender.is_finished

    @property
    def closing(self) -> bool:
        """Whether the connection is ending, whoever ended it."""
        return self._close_event is not None

    @property
    def has_begun(self) -> bool:
        """Whether the client has sent a packet that could be read."""
        return self._state is not QuicConnectionState.FIRSTFLIGHT

    @property
    def first_ids(self) -> tuple[bytes, bytes]:
        """The ids that lead here before the peer was told any other."""
        return self.original_destination_connection_id, self.host_cid

    # ------------------------------------------------------------------ aioquic's own decisions

    def _replenish_connection_ids(self) -> None:
        known = len(self._host_cids)
        super()._replenish_connection_ids()
        for issued in self._host_cids[known:]:
            issued.cid = self._ids.issue()
            issued.stateless_reset_token = self._ids.reset_token(issued.cid)

    def _write_connection_limits(
        self, builder: "QuicPacketBuilder", space: "QuicPacketSpace"
    ) -> None:
        limit = self._local_max_data
        window = self._configuration.max_data
        granted = self._consumed + window
        if granted - limit.value >= window // _RENEW:
            limit.value = granted
        # Nothing seems to be used while aioquic looks, so that it leaves the limit alone.
        used, limit.used = limit.used, 0
        try:
            super()._write_connection_limits(builder, space)
        finally:
            limit.used = used

    def _write_stream_limits(
        self, builder: "QuicPacketBuilder", space: "QuicPacketSpace", stream: QuicStream
    ) -> None:
        receiver = stream.receiver
        if receiver.is_finished:
            return
        window = self._configuration.max_stream_data
        granted = self._streams_consumed.get(stream.stream_id or 0, 0) + window
        if granted - stream.max_stream_data_local >= window // _RENEW:
            stream.max_stream_data_local = granted
        highest, receiver.highest_offset = receiver.highest_offset, 0
        try:
            super()._write_stream_limits(builder, space, stream)
        finally:
            receiver.highest_offset = highest
