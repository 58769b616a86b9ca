"""Who a node is: a file in its data directory that makes it the same node after a restart."""

import os
import uuid
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from robustmq.errors import ConfigError
from robustmq.workers.limits import StartError

NAME: Final = "identity.json"
FOLDER: Final = "meta"


class Identity(Struct, frozen=True, kw_only=True):
    """What the file holds.

    `store` is made with the data directory, once. `cluster` is the id of the cluster that the node
    belongs to, "" before it has heard it. `has_begun`: its Raft groups have been there, so that
    it may have voted; `first` are the voters that they began with.
    """

    node: int
    store: str
    cluster: str = ""
    has_begun: bool = False
    first: tuple[int, ...] = ()


class IdentityFile:
    """The identity, read or made, and kept on disk whenever it changes.

    Raises ConfigError when the data are those of another node, StartError when the file is damaged
    or cannot be written.
    """

    def __init__(self, data_path: str, node: int) -> None:
        self._folder = Path(data_path) / FOLDER
        self._path = self._folder / NAME
        try:
            self.value = self._read(node)
        except OSError as error:
            raise StartError(f"{self._path} cannot be used: {error.strerror}") from error

    def _read(self, node: int) -> Identity:
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            made = Identity(node=node, store=uuid.uuid4().hex)
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write(made)
            return made
        try:
            found = msgspec.json.decode(text, type=Identity)
        except msgspec.DecodeError as error:
            raise StartError(
                f"{self._path} is damaged ({error}): the node cannot know who it is; have it "
                "replaced, and let it begin with an empty data directory"
            ) from error
        if found.node != node:
            raise ConfigError(
                f"broker_id is {node}, but {self._folder.parent} holds the data of node "
                f"{found.node}: give the node its number back, or another data_path"
            )
        return found

    def change(self, **values: object) -> None:
        """Change fields; on the disk when this returns. Raises OSError."""
        self.value = msgspec.structs.replace(self.value, **values)
        self._write(self.value)

    def _write(self, value: Identity) -> None:
        draft = self._path.with_suffix(".new")
        with draft.open("wb") as file:
            file.write(msgspec.json.encode(value) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
