"""The lives of a node's meta process: numbers that never repeat and always rise."""

from typing import Final

from robustmq.errors import Corrupt
from robustmq.storage.files import Files, read_small, write_small

_FILE: Final = "life"
_MOST: Final = (1 << 32) - 1


def begin_life(files: Files, folder: str, wall_s: int) -> int:
    """Return the number of the life that begins now; it is on the disk when this returns.

    `wall_s` is the time in seconds since 1970, so that a node whose disk was replaced does not
    begin with numbers that it has used. Raises Corrupt, OSError.
    """
    files.mkdir(folder)
    path = f"{folder}/{_FILE}"
    data = read_small(files, path)
    if data is not None and not data.isdigit():
        raise Corrupt(f"{path} holds no number: write the time in seconds since 1970 into it")
    life = max(int(data or b"0") + 1, wall_s)
    if life > _MOST:
        raise Corrupt(f"{path} says {life}, which is too high: is the clock of this machine right?")
    write_small(files, path, str(life).encode())
    for each in (folder, folder.rpartition("/")[0]):
        files.sync_directory(each)
    return life
