"""The closing line sums all runs and fails with any of them."""

from pathlib import Path

import pytest

from tests.architecture import closing_line


def report(path: Path, tests: int, failures: int = 0, errors: int = 0, skipped: int = 0) -> str:
    path.write_text(
        f'<testsuites><testsuite name="pytest" errors="{errors}" failures="{failures}" '
        f'skipped="{skipped}" tests="{tests}" time="1.5"></testsuite></testsuites>'
    )
    return str(path)


def test_sums_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [report(tmp_path / "a.xml", 10), report(tmp_path / "b.xml", 5, skipped=2)]
    assert closing_line.main(paths) == 0
    assert " 13 passed, 2 skipped in 3.00s " in capsys.readouterr().out


@pytest.mark.parametrize(("failures", "errors"), [(1, 0), (0, 1)])
def test_one_failure_fails_all(tmp_path: Path, failures: int, errors: int) -> None:
    paths = [
        report(tmp_path / "a.xml", 10),
        report(tmp_path / "b.xml", 5, failures=failures, errors=errors),
    ]
    assert closing_line.main(paths) == 1


@pytest.mark.parametrize("exists", [True, False])
def test_a_run_that_ran_nothing_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], exists: bool
) -> None:
    empty = report(tmp_path / "b.xml", 0) if exists else str(tmp_path / "missing.xml")
    assert closing_line.main([report(tmp_path / "a.xml", 10), empty]) == 1
    assert " 10 passed, 1 error in " in capsys.readouterr().out


def test_no_run_at_all_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert closing_line.main([]) == 1
    assert "no tests ran" in capsys.readouterr().out
