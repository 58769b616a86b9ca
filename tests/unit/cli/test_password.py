"""`robustmq-password`: what it prints is what the configuration reads."""

import io
import tomllib
from pathlib import Path

import pytest

from robustmq.cli.password import main
from robustmq.config import load
from robustmq.policy.passwords import METHODS
from robustmq.policy.users import Users


@pytest.mark.parametrize("method", [None, *METHODS])
def test_what_is_printed_is_a_users_password(
    method: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("pencil\n"))
    assert main(["-i", "5", *(["-m", method] if method else [])]) == 0
    line = capsys.readouterr().out
    assert len(tomllib.loads(line)["password"]) == (1 if method else len(METHODS))
    path = tmp_path / "server.toml"
    path.write_text(f'[[users]]\nusername = "alice"\n{line}', encoding="utf-8")
    account = Users(load(path, (), {}).users).find("default", "alice")
    assert account is not None
    assert all(each.matches(b"pencil") for each in account.verifiers)
    assert not any(each.matches(b"pen") for each in account.verifiers)


def test_without_a_password_there_is_no_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main([]) == 1
    assert capsys.readouterr().out == ""
