"""No target is broken by what was found before, nor by what a bounded search finds now."""

import pytest

from tests.fuzz import havoc
from tests.fuzz.targets import SEEDS, TARGETS

SECONDS = 1.0


def test_every_target_has_seeds() -> None:
    assert set(SEEDS) == set(TARGETS)
    assert {path.name for path in havoc.CORPUS.iterdir() if path.is_dir()} <= set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_breaks_nothing(name: str) -> None:
    for data in [b"", *SEEDS[name], *havoc.found(name)]:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_a_bounded_search_breaks_nothing(name: str) -> None:
    seeds = [*SEEDS[name], *havoc.found(name)]
    assert havoc.havoc(TARGETS[name], seeds, SECONDS, seed=len(name)) > 0


def test_a_search_finds_what_breaks_a_law() -> None:
    def target(data: bytes) -> None:
        assert b"\x80" not in data

    with pytest.raises(AssertionError):
        havoc.havoc(target, [b"a seed"], 10, seed=1)
