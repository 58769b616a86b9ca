# cython: language_level=3, boundscheck=False, wraparound=False
"""The subscription trie: from a topic to the keys of all its filters, without a copy of it."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.list cimport PyList_Append
from cpython.object cimport PyObject
from libc.string cimport memchr


# Filters may nest thousands of levels deep; the trashcan keeps their end off the C stack.
@cython.trashcan(True)
cdef class _Node:
    """A level of the wildcard filters; the fields are those of the twin."""

    cdef dict children
    cdef _Node plus
    cdef object here
    cdef object below

    cdef bint empty(self):
        return (self.here is None and self.below is None and self.plus is None
                and not self.children)


cdef class _Many:
    """The keys of a filter that has several."""

    cdef dict keys


cdef object _with_key(object keys, object key):
    cdef _Many many
    if keys is None:
        return key
    if type(keys) is _Many:
        (<_Many>keys).keys[key] = None
        return keys
    if keys == key:
        return keys
    many = _Many.__new__(_Many)
    many.keys = {keys: None, key: None}
    return many


cdef object _without_key(object keys, object key):
    cdef dict held
    if type(keys) is _Many:
        held = (<_Many>keys).keys
        held.pop(key, None)
        return keys if len(held) > 1 else next(iter(held))
    return None if keys == key else keys


cdef Py_ssize_t _count(object keys):
    if keys is None:
        return 0
    return len((<_Many>keys).keys) if type(keys) is _Many else 1


cdef int _extend(list found, object keys) except -1:
    if keys is None:
        return 0
    if type(keys) is _Many:
        found.extend((<_Many>keys).keys)
    else:
        PyList_Append(found, keys)
    return 0


cdef tuple _path(bytes topic_filter):
    cdef list levels = topic_filter.split(b"/")
    cdef bint below = levels[len(levels) - 1] == b"#"
    if below:
        levels.pop()
    return levels, below


cdef _Node _descend(_Node node, bytes level):
    cdef object child
    if level == b"+":
        if node.plus is None:
            node.plus = _Node.__new__(_Node)
        return node.plus
    if node.children is None:
        node.children = {}
    child = node.children.get(level)
    if child is None:
        child = _Node.__new__(_Node)
        node.children[level] = child
    return <_Node>child


cdef bint _has_wildcard(bytes topic_filter):
    cdef const char* text = PyBytes_AS_STRING(topic_filter)
    cdef size_t size = PyBytes_GET_SIZE(topic_filter)
    return memchr(text, c"+", size) != NULL or memchr(text, c"#", size) != NULL


cdef class Trie:
    """The filters of many subscriptions; see the twin, which is the contract."""

    cdef dict _exact
    cdef _Node _root
    cdef Py_ssize_t _size

    def __cinit__(self):
        self._exact = {}
        self._root = _Node.__new__(_Node)
        self._size = 0

    @classmethod
    def __class_getitem__(cls, item):
        return cls

    def __len__(self):
        """Return the number of pairs of a filter and a key."""
        return self._size

    def add(self, bytes topic_filter not None, object key):
        """Add a key to a filter; False when it was there already."""
        cdef Py_ssize_t before
        cdef _Node node
        cdef bint below
        cdef list levels
        cdef object new
        if not _has_wildcard(topic_filter):
            new = self._exact.get(topic_filter)
            before = _count(new)
            new = _with_key(new, key)
            self._exact[topic_filter] = new
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
        before = _count(new) - before
        self._size += before
        return before == 1

    def discard(self, bytes topic_filter not None, object key):
        """Take a key from a filter; False when it was not there."""
        cdef Py_ssize_t shrunk
        cdef _Node node
        cdef bint below
        cdef list levels, path
        cdef object child, new
        if not _has_wildcard(topic_filter):
            child = self._exact.get(topic_filter)
            shrunk = _count(child)
            new = _without_key(child, key)
            if new is None:
                self._exact.pop(topic_filter, None)
            else:
                self._exact[topic_filter] = new
            shrunk -= _count(new)
            self._size -= shrunk
            return shrunk == 1
        levels, below = _path(topic_filter)
        node = self._root
        path = [node]
        for level in levels:
            if level == b"+":
                child = node.plus
            else:
                child = None if node.children is None else node.children.get(level)
            if child is None:
                return False
            node = <_Node>child
            path.append(node)
        if below:
            shrunk = _count(node.below)
            node.below = _without_key(node.below, key)
            shrunk -= _count(node.below)
        else:
            shrunk = _count(node.here)
            node.here = _without_key(node.here, key)
            shrunk -= _count(node.here)
        self._size -= shrunk
        _prune(path, levels)
        return shrunk == 1

    def match(self, bytes topic not None):
        """Return the keys of every filter that matches a topic name (MQTT5 4.7)."""
        cdef list found = []
        cdef PyObject* keys = PyDict_GetItem(self._exact, topic)
        if keys != NULL:
            _extend(found, <object>keys)
        if not self._root.empty():
            self._walk(topic, found)
        return found

    cdef int _walk(self, bytes topic, list found) except -1:
        cdef const char* text = PyBytes_AS_STRING(topic)
        cdef const char* end = text + PyBytes_GET_SIZE(topic)
        cdef const char* slash
        cdef bint hidden = text < end and text[0] == c"$"
        cdef list reached, following
        cdef _Node node = self._root
        cdef object entry
        cdef PyObject* child
        cdef bytes level
        reached = [node]
        while reached:
            slash = <const char*>memchr(text, c"/", end - text)
            level = PyBytes_FromStringAndSize(text, (end if slash == NULL else slash) - text)
            following = []
            for entry in reached:
                node = <_Node>entry
                if not hidden:
                    _extend(found, node.below)
                    if node.plus is not None:
                        PyList_Append(following, node.plus)
                if node.children is not None:
                    child = PyDict_GetItem(node.children, level)
                    if child != NULL:
                        PyList_Append(following, <object>child)
            # Only a wildcard in the first level is blind to `$` ([MQTT-4.7.2-1]).
            hidden = False
            reached = following
            if slash == NULL:
                break
            text = slash + 1
        for entry in reached:
            node = <_Node>entry
            _extend(found, node.here)
            _extend(found, node.below)
        return 0


cdef int _prune(list path, list levels) except -1:
    """Take away the nodes on which nothing hangs any more, from the end of a path."""
    cdef _Node node, parent
    while levels:
        node = <_Node>path.pop()
        if not node.empty():
            break
        level = levels.pop()
        parent = <_Node>path[len(path) - 1]
        if level == b"+":
            parent.plus = None
        else:
            del parent.children[level]
            if not parent.children:
                parent.children = None
    return 0
