"""The edge-triggered epoll that carries plain TCP, compiled where possible."""

from typing import TYPE_CHECKING

from robustmq._kernel.choice import COMPILED

if COMPILED and not TYPE_CHECKING:
    from robustmq._kernel.fast.poller import Poller, Stream, Watch, accept, peek, peer_address, slew
else:
    from robustmq._kernel.pure.poller import Poller, Stream, Watch, accept, peek, peer_address, slew

__all__ = ["Poller", "Stream", "Watch", "accept", "peek", "peer_address", "slew"]
