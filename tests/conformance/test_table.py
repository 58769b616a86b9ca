"""No statement is without its test or its reason, and the page says what is so."""

from pathlib import Path
from types import ModuleType

import pytest

from tests.conformance import kafka_apis, table
from tests.conformance.statements import NAMES, V5, V31, V311, kept, read

PAGES = (table, kafka_apis)
COUNTS = {V31: 9, V311: 141, V5: 251}


@pytest.mark.parametrize("version", NAMES, ids=NAMES.values())
def test_every_statement_of_a_specification_is_listed(version: int) -> None:
    assert len(read(version)) == COUNTS[version]


@pytest.mark.parametrize("version", NAMES, ids=NAMES.values())
def test_every_statement_that_a_server_can_violate_has_a_test(version: int) -> None:
    tests = kept()
    bare = [
        number
        for number, statement in read(version).items()
        if statement.testable and (version, number) not in tests
    ]
    assert bare == []


def test_no_test_shows_a_statement_that_is_not_there() -> None:
    statements = {version: read(version) for version in NAMES}
    unknown = [
        (number, tests)
        for (version, number), tests in kept().items()
        if number not in {known for known, one in statements[version].items() if one.testable}
    ]
    assert unknown == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_up_to_date(page: ModuleType) -> None:
    assert page.main(["--check"]) == 0


@pytest.mark.parametrize("page", PAGES)
def test_a_stale_page_is_noticed(
    page: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    assert page.main(["--check"], tmp_path) == 1
    assert "run scripts/conformance" in capsys.readouterr().err
    assert page.main([], tmp_path) == 0
    assert page.main(["--check"], tmp_path) == 0
