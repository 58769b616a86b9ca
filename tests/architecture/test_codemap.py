"""The code map names every module, and a stale one is noticed."""

from pathlib import Path

import pytest

from tests.architecture import codemap

ROOT = Path(__file__).resolve().parents[2]


def small_tree(root: Path) -> Path:
    package = root / "robustmq" / "mqtt"
    package.mkdir(parents=True)
    (root / "robustmq" / "__init__.py").write_text('"""The package."""\n')
    (package / "__init__.py").write_text('"""MQTT."""\n')
    (package / "codec.py").write_text('"""Bytes to packets.\n\nMore.\n"""\n')
    (package / "scan.pyx").write_text('# cython: x=y\n\n"""Finds packets.\n\nMore."""\n')
    document = root / "ARCHITECTURE.md"
    document.write_text(f"before\n{codemap.BEGIN}\nold\n{codemap.END}\nafter\n")
    return document


def test_our_code_map_is_up_to_date() -> None:
    assert codemap.main(["--check"], ROOT) == 0


def test_every_module_of_ours_is_named() -> None:
    block = codemap.code_map(ROOT)
    for path in [*(ROOT / "robustmq").rglob("*.py"), *(ROOT / "robustmq").rglob("*.pyx")]:
        named = path.parent.relative_to(ROOT).as_posix() if path.stem == "__init__" else path.name
        assert f"`{named}" in block, path


def test_a_module_is_listed_with_its_first_line(tmp_path: Path) -> None:
    small_tree(tmp_path)
    block = codemap.code_map(tmp_path)
    assert "**`robustmq/mqtt/`** — MQTT." in block
    assert "- `codec.py` — Bytes to packets.\n- `scan.pyx` — Finds packets.\n" in block


def test_a_stale_map_is_noticed_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = small_tree(tmp_path)
    assert codemap.main(["--check"], tmp_path) == 1
    assert "stale" in capsys.readouterr().err
    assert codemap.main([], tmp_path) == 0
    assert codemap.main(["--check"], tmp_path) == 0
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text


def test_a_new_module_makes_the_map_stale(tmp_path: Path) -> None:
    small_tree(tmp_path)
    codemap.main([], tmp_path)
    (tmp_path / "robustmq" / "mqtt" / "session.py").write_text('"""Sessions."""\n')
    assert codemap.main(["--check"], tmp_path) == 1


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="no markers"):
        codemap.replaced("text", "block")
