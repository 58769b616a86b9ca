"""The readable twin of the subscription trie: from a topic to the keys of all its filters."""

from collections.abc import Hashable
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)


class _Many(dict[_Key, None]):
    """The keys of a filter that has several; one alone is held without a container."""

    __slots__ = ()


class _Node(Generic[_Key]):
    """A level of the wildcard filters.

    `children` are the next levels by name, `plus` the next level for `+`. `here` are the keys
    of the filter that ends at this level, `below` of the one that goes on with `#`; both are
    None, a key or a _Many.
    """

    __slots__ = ("below", "children", "here", "plus")

    def __init__(self) -> None:
        self.children: dict[bytes, _Node[_Key]] | None = None
        self.plus: _Node[_Key] | None = None
        self.here: _Key | _Many[_Key] | None = None
        self.below: _Key | _Many[_Key] | None = None

    def empty(self) -> bool:
        """Say whether nothing hangs on this node any more."""
        return self.here is None and self.below is None and self.plus is None and not self.children


def _with_key(keys: _Key | _Many[_Key] | None, key: _Key) -> _Key | _Many[_Key]:
    """Return `keys` with one more."""
    if keys is None:
        return key
    if isinstance(keys, _Many):
        keys[key] = None
        return keys
    if keys == key:
        return keys
    return _Many({keys: None, key: None})


def _without_key(keys: _Key | _Many[_Key] | None, key: _Key) -> _Key | _Many[_Key] | None:
    """Return `keys` without one; None when none is left."""
    if isinstance(keys, _Many):
        keys.pop(key, None)
        return keys if len(keys) > 1 else next(iter(keys))
    return None if keys == key else keys


def _count(keys: _Key | _Many[_Key] | None) -> int:
    """Return how many keys there are."""
    if keys is None:
        return 0
    return len(keys) if isinstance(keys, _Many) else 1


def _extend(found: list[_Key], keys: _Key | _Many[_Key] | None) -> None:
    """Append all of `keys` to `found`."""
    if isinstance(keys, _Many):
        found.extend(keys)
    elif keys is not None:
        found.append(keys)


class Trie(Generic[_Key]):
    """The filters of many subscriptions, each with the keys that stand for its subscribers.

    Filters and topics are valid and in UTF-8 (`message.topic` checks them); a shared
    subscription's filter is added without its `$share/group/`. A key is anything hashable but
    None. A key is held once per filter: to add it again, or to discard what is not there,
    changes nothing.

    Filters without a wildcard are a dict and cost no nodes; levels exist only for the others.
    """

    __slots__ = ("_exact", "_root", "_size")

    def __init__(self) -> None:
        self._exact: dict[bytes, _Key | _Many[_Key]] = {}
        self._root: _Node[_Key] = _Node()
        self._size = 0

    def __len__(self) -> int:
        """Return the number of pairs of a filter and a key."""
        return self._size

    def add(self, topic_filter: bytes, key: _Key) -> bool:
        """Add a key to a filter; False when it was there already."""
        if b"+" not in topic_filter and b"#" not in topic_filter:
            old = self._exact.get(topic_filter)
            before = _count(old)
            new = self._exact[topic_filter] = _with_key(old, key)
        else:
            levels, below = _path(topic_filter)
            node = self._root
            for level in levels:
                node = _descend(node, level)
            if below:
                before = _count(node.below)
                new = node.below = _with_key(node.below, key)
            else:
                before = _count(node.here)
                new = node.here = _with_key(node.here, key)
        grown = _count(new) - before
        self._size += grown
        return grown == 1

    def discard(self, topic_filter: bytes, key: _Key) -> bool:
        """Take a key from a filter; False when it was not there."""
        if b"+" not in topic_filter and b"#" not in topic_filter:
            return self._discard_exact(topic_filter, key)
        levels, below = _path(topic_filter)
        path: list[_Node[_Key]] = [self._root]
        for level in levels:
            node = path[-1]
            child = node.plus if level == b"+" else (node.children or {}).get(level)
            if child is None:
                return False
            path.append(child)
        node = path[-1]
        if below:
            before = _count(node.below)
            node.below = _without_key(node.below, key)
            shrunk = before - _count(node.below)
        else:
            before = _count(node.here)
            node.here = _without_key(node.here, key)
            shrunk = before - _count(node.here)
        self._size -= shrunk
        while levels and path.pop().empty():
            level = levels.pop()
            parent = path[-1]
            if level == b"+":
                parent.plus = None
            elif parent.children is not None:
                del parent.children[level]
                if not parent.children:
                    parent.children = None
        return shrunk == 1

    def _discard_exact(self, topic_filter: bytes, key: _Key) -> bool:
        old = self._exact.get(topic_filter)
        before = _count(old)
        new = _without_key(old, key)
        if new is None:
            self._exact.pop(topic_filter, None)
        else:
            self._exact[topic_filter] = new
        shrunk = before - _count(new)
        self._size -= shrunk
        return shrunk == 1

    def match(self, topic: bytes) -> list[_Key]:
        """Return the keys of every filter that matches a topic name (MQTT5 4.7).

        A key that is held by several matching filters occurs once for each of them. Keys of
        one filter are in the order in which they were added; filters are in no set order.
        """
        found: list[_Key] = []
        _extend(found, self._exact.get(topic))
        root = self._root
        if root.empty():
            return found
        hidden = topic.startswith(b"$")
        reached = [root]
        for level in topic.split(b"/"):
            following: list[_Node[_Key]] = []
            for node in reached:
                if node.below is not None and not hidden:
                    _extend(found, node.below)
                if node.children is not None:
                    child = node.children.get(level)
                    if child is not None:
                        following.append(child)
                if node.plus is not None and not hidden:
                    following.append(node.plus)
            # Only a wildcard in the first level is blind to `$` ([MQTT-4.7.2-1]).
            hidden = False
            reached = following
            if not reached:
                break
        for node in reached:
            _extend(found, node.here)
            _extend(found, node.below)
        return found


def _path(topic_filter: bytes) -> tuple[list[bytes], bool]:
    levels = topic_filter.split(b"/")
    below = levels[-1] == b"#"
    if below:
        levels.pop()
    return levels, below


def _descend(node: _Node[_Key], level: bytes) -> _Node[_Key]:
    if level == b"+":
        if node.plus is None:
            node.plus = _Node()
        return node.plus
    if node.children is None:
        node.children = {}
    child = node.children.get(level)
    if child is None:
        child = node.children[level] = _Node()
    return child
