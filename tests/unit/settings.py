"""Configurations for tests: written to a file, and refused with a sentence."""

from pathlib import Path

import pytest

from robustmq.config import load
from robustmq.errors import ConfigError

NOTHING: dict[str, str] = {}


def refused(path: Path | None = None, overrides: tuple[str, ...] = (), **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides, environment)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "server.toml"
    path.write_text(text, encoding="utf-8")
    return path
