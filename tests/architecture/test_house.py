"""Our tree keeps every rule, and every rule notices a tree that breaks it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.architecture import house, twins

ROOT = Path(__file__).resolve().parents[2]
Rule = Callable[[Path], list[str]]

RULES: dict[str, Rule] = {
    "long_files": house.long_files,
    "long_functions": house.long_functions,
    "banned_names": house.banned_names,
    "busy_inits": house.busy_inits,
    "loose_docstrings": house.loose_docstrings,
    "async_in_pure": house.async_in_pure,
    "chance_in_pure": house.chance_in_pure,
    "prints": house.prints,
    "impure_kernels": house.impure_kernels,
    "unequal_twins": twins.unequal_twins,
}
DOC = '"""A module."""\n'
LONG = house.FILE_LINES + 1
KERNEL = "robustmq/_kernel/"
CHOOSER = (
    DOC + "if COMPILED:\n    from robustmq._kernel.fast.k import f\n"
    "else:\n    from robustmq._kernel.pure.k import f\n"
)


def kernel(chooser: str, pure: str, fast: str) -> dict[str, str]:
    return {
        KERNEL + "k.py": chooser,
        KERNEL + "pure/k.py": DOC + pure,
        KERNEL + "fast/k.pyx": DOC + fast,
    }


# rule, what a tree holds that breaks it.
BREAKS: list[tuple[str, dict[str, str]]] = [
    ("long_files", {"robustmq/a.py": DOC + "x = 1\n" * LONG}),
    ("long_files", {"robustmq/_kernel/fast/a.pyx": "x = 1\n" * LONG}),
    ("long_files", {"perf/loadgen/a.c": "int x;\n" * LONG}),
    ("long_files", {"tests/unit/test_a.py": "x = 1\n" * LONG}),
    ("long_functions", {"robustmq/a.py": "def f():\n" + "    x = 1\n" * house.FUNCTION_LINES}),
    ("long_functions", {"perf/a.py": "class A:\n    async def f():\n" + "        x = 1\n" * 70}),
    ("long_functions", {"tests/a.py": "@g(" + "\n" * 69 + ")\ndef f():\n    x = 1\n"}),
    *[("banned_names", {f"robustmq/{name}.py": DOC}) for name in sorted(house.BANNED_NAMES)],
    ("banned_names", {"robustmq/utils/topic.py": DOC}),
    ("banned_names", {"perf/loadgen/util.c": "int x;\n"}),
    ("busy_inits", {"robustmq/a/__init__.py": DOC + "import os\n"}),
    ("busy_inits", {"robustmq/a/__init__.py": ""}),
    ("busy_inits", {"robustmq/a/__init__.py": "x = 1\n"}),
    ("loose_docstrings", {"robustmq/a.py": "x = 1\n"}),
    ("loose_docstrings", {"robustmq/a.py": '"""A module"""\n'}),
    ("loose_docstrings", {"robustmq/a.py": DOC + 'class A:\n    """No stop\n\n    End."""\n'}),
    ("loose_docstrings", {"robustmq/a.py": DOC + 'def f():\n    """Why?"""\n'}),
    ("async_in_pure", {"robustmq/mqtt/a.py": DOC + "async def f():\n    pass\n"}),
    ("async_in_pure", {"robustmq/shard/a.py": DOC + "async def f():\n    await g()\n"}),
    ("chance_in_pure", {"robustmq/broker/a.py": DOC + "import os\nx = os.urandom(8)\n"}),
    ("prints", {"robustmq/workers/a.py": DOC + "print(1)\n"}),
    ("impure_kernels", {"robustmq/_kernel/fast/a.pyx": "import time\n"}),
    ("impure_kernels", {"robustmq/_kernel/fast/a.pyx": "from random import random\n"}),
    ("impure_kernels", {"robustmq/_kernel/fast/a.pyx": "from libc.time cimport time\n"}),
    ("unequal_twins", {KERNEL + "k.py": CHOOSER}),
    ("unequal_twins", {KERNEL + "pure/k.py": DOC + "def f(a): ...\n"}),
    ("unequal_twins", {KERNEL + "fast/k.pyx": DOC + "def f(a): pass\n"}),
    (
        "unequal_twins",
        kernel(CHOOSER, "def f(): ...\n", "def f():\n") | {KERNEL + "pure/l.py": DOC},
    ),
    ("unequal_twins", kernel(CHOOSER, "def f(a): ...\n", "def f(b): pass\n")),
    ("unequal_twins", kernel(CHOOSER, "def f(a): ...\n", "def g(a): pass\n")),
    ("unequal_twins", kernel(DOC + "x = 1\n", "def f(a): ...\n", "def f(a): pass\n")),
    (
        "unequal_twins",
        kernel(
            CHOOSER.replace("fast.k import f", "fast.k import g"), "def f(): ...\n", "def f():\n"
        ),
    ),
    (
        "unequal_twins",
        kernel(
            CHOOSER.replace("import f", "import F"),
            "class F:\n    def one(self, a): ...\n    def two(self): ...\n",
            "cdef class F:\n    cpdef one(self, int a):\n        pass\n",
        ),
    ),
    (
        "unequal_twins",
        kernel(
            CHOOSER.replace("import f", "import F"),
            "class F:\n    def __init__(self, a, b): ...\n",
            "cdef class F:\n    def __cinit__(self, int a):\n        pass\n",
        ),
    ),
    (
        "unequal_twins",
        kernel(
            CHOOSER.replace("import f", "import F"),
            "class F:\n    @property\n    def size(self): ...\n",
            "cdef class F:\n    pass\n",
        ),
    ),
]


def plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", RULES)
def test_our_tree_keeps_the_rule(name: str) -> None:
    assert RULES[name](ROOT) == []


@pytest.mark.parametrize(("name", "files"), BREAKS)
def test_the_rule_notices_a_tree_that_breaks_it(
    tmp_path: Path, name: str, files: dict[str, str]
) -> None:
    plant(tmp_path, files)
    assert RULES[name](tmp_path) != []


def test_every_rule_is_shown_a_tree_that_breaks_it() -> None:
    assert {name for name, _ in BREAKS} == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_the_rule_is_content_with_a_tidy_tree(tmp_path: Path, name: str) -> None:
    tidy = {
        "robustmq/__init__.py": DOC,
        "robustmq/workers/turn.py": DOC + "async def f():\n    pass\n",
        "robustmq/cli/supervisor.py": DOC + "print(1)\n",
        "robustmq/mqtt/codec.py": DOC + "def f() -> None:\n" + "    x = 1\n" * 69,
        "perf/loadgen/build/a.c": "int x;\n" * LONG,
        "robustmq/_kernel/fast/k.c": "int x;\n" * LONG,
    }
    pure = (
        "LIMIT: Final = 3\n"
        "def f(a: int, b: bytes = b',', *rest: int) -> int: ...\n"
        "class F:\n"
        "    def __init__(self, memory: Buffer, size: int = 4) -> None: ...\n"
        "    @property\n    def size(self) -> int: ...\n"
        "    def pull(self, limit: int) -> list[bytes]: ...\n"
        "    def _hidden(self) -> None: ...\n"
        "    def told(self, code: int) -> None: ...\n"
        "    def close(self) -> None: ...\n"
    )
    fast = (
        "LIMIT = 3\n"
        "cdef int inner(int z):\n    return z\n"
        "def f(int a, bytes b=b',', *rest):\n    return 1  # def g(x):\n"
        "cdef class Told:\n    def told(self, int code):\n        pass\n"
        "cdef class F(Told):\n"
        "    cdef readonly size_t size\n"
        "    cdef int own\n"
        "    def __cinit__(self, const unsigned char[::1] memory not None, size_t size=4):\n"
        "        pass\n"
        "    cpdef list pull(self, unsigned long limit):\n        return []\n"
        "    cdef void hidden(self):\n        pass\n"
        "    cdef int close(self) except -1:\n        pass\n"
    )
    chooser = CHOOSER.replace("import f", "import LIMIT, F, f")
    plant(tmp_path, tidy | kernel(chooser, pure, fast))
    assert RULES[name](tmp_path) == []
