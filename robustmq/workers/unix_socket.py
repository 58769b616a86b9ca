"""The Unix socket of a node: made before the fork, one for all workers, removed at the end."""

import contextlib
import os
import socket
import stat
from pathlib import Path
from typing import Final

from robustmq.workers.limits import StartError

_PATH_BYTES: Final = 107
"""Bytes of the longest path of a Unix socket (sun_path)."""


class UnixSocket:
    """A bound Unix socket at `path` with the permissions `mode` ("0660").

    The file of a server that is gone is replaced. Raises StartError when the path is too long,
    cannot be written, is taken by a server that lives, or by something that is no socket.
    """

    def __init__(self, path: str, mode: str) -> None:
        self._path = Path(path).absolute()
        if len(os.fsencode(self._path)) > _PATH_BYTES:
            raise _refused(path, f"the path has more than {_PATH_BYTES} bytes")
        self._clear()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.setblocking(False)
        # With these permissions from its first moment on.
        before = os.umask(0o777 & ~int(mode, 8))
        try:
            self.listener.bind(str(self._path))
        except OSError as error:
            self.listener.close()
            raise _refused(path, error.strerror or str(error)) from error
        finally:
            os.umask(before)
        self._inode = self._path.stat().st_ino

    def _clear(self) -> None:
        """Remove the file of a server that is gone."""
        try:
            is_socket = stat.S_ISSOCK(self._path.stat().st_mode)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _refused(str(self._path), error.strerror or str(error)) from error
        if not is_socket:
            raise _refused(str(self._path), "there is a file that is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(self._path))
            except ConnectionRefusedError:
                with contextlib.suppress(FileNotFoundError):
                    self._path.unlink()
                return
            except OSError as error:
                raise _refused(str(self._path), error.strerror or str(error)) from error
        raise _refused(str(self._path), "it is in use")

    def remove(self) -> None:
        """Close the socket and remove its file, if it is still ours."""
        self.listener.close()
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()


def _refused(path: str, reason: str) -> StartError:
    return StartError(f"cannot listen on {path} (mqtt_runtime.server.unix_path): {reason}")
