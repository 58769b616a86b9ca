"""What a broker is measured against: sockets that are read, and files that are written, raw.

A server of frames with their size in front: each is answered with as many bytes as a Produce
answer has. `append`: all bytes go to a file per connection, as they come, synced once a second
like robustmq's logs; `discard`: nothing is done with them, which is the loopback's own limit.
Run as `python -m perf.kafka.raw append|discard PORT PROCESSES FOLDER`.
"""

import os
import selectors
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Final

_READ_BYTES: Final = 1 << 18
_ANSWER: Final = (44).to_bytes(4, "big") + bytes(44)
_SYNC_SECONDS: Final = 1.0


class _Peer:
    """A connection: the file that takes its bytes, and how much of its frame is still to come."""

    def __init__(self, sock: socket.socket, file: int | None) -> None:
        self.sock = sock
        self.file = file
        self._left = 0
        self._head = b""

    def receive(self, buffer: memoryview) -> bool:
        """Read once; False when the connection has ended."""
        try:
            count = self.sock.recv_into(buffer)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not count:
            return False
        if self.file is not None:
            os.write(self.file, buffer[:count])
        done = self._count(buffer[:count])
        if done:
            self.sock.send(_ANSWER * done)
        return True

    def _count(self, data: memoryview) -> int:
        """How many frames have ended with these bytes."""
        at = done = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                done += not self._left
                continue
            need = 4 - len(self._head)
            self._head += bytes(data[at : at + need])
            at += need
            if len(self._head) == 4:
                self._left = int.from_bytes(self._head, "big")
                self._head = b""
        return done


def _sync(files: list[int]) -> None:
    while True:
        time.sleep(_SYNC_SECONDS)
        for file in list(files):
            os.fdatasync(file)


def _serve(port: int, folder: Path | None) -> None:
    listener = socket.create_server(("127.0.0.1", port), reuse_port=True, backlog=128)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    buffer = memoryview(bytearray(_READ_BYTES))
    files: list[int] = []
    if folder is not None:
        threading.Thread(target=_sync, args=(files,), daemon=True).start()
    while True:
        for key, _ in selector.select():
            peer = key.data
            if peer is None:
                sock = listener.accept()[0]
                sock.setblocking(False)
                file = None
                if folder is not None:
                    name = folder / f"{os.getpid()}-{len(files)}"
                    file = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
                    files.append(file)
                selector.register(sock, selectors.EVENT_READ, _Peer(sock, file))
            elif not peer.receive(buffer):
                selector.unregister(peer.sock)
                peer.sock.close()


def main(words: list[str]) -> None:
    """Serve until SIGTERM."""
    kind, port, processes, folder = words
    for _ in range(int(processes) - 1):
        if not os.fork():
            break
    _serve(int(port), Path(folder) if kind == "append" else None)


if __name__ == "__main__":
    main(sys.argv[1:])
