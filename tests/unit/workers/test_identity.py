"""Who a node is, over its lives."""

from pathlib import Path

import pytest

from robustmq.errors import ConfigError
from robustmq.workers.identity import FOLDER, NAME, IdentityFile
from robustmq.workers.limits import StartError


def test_a_node_is_the_same_after_a_restart(tmp_path: Path) -> None:
    first = IdentityFile(str(tmp_path), 3)
    assert (first.value.node, first.value.cluster, first.value.has_begun) == (3, "", False)
    first.change(cluster="c", has_begun=True, first=(1, 2, 3))
    again = IdentityFile(str(tmp_path), 3)
    assert again.value == first.value
    assert (again.value.cluster, again.value.first) == ("c", (1, 2, 3))
    assert IdentityFile(str(tmp_path / "other"), 3).value.store != first.value.store


def test_a_directory_of_another_node_is_refused(tmp_path: Path) -> None:
    IdentityFile(str(tmp_path), 3)
    with pytest.raises(ConfigError, match=r"broker_id is 4, but .* node 3"):
        IdentityFile(str(tmp_path), 4)


@pytest.mark.parametrize("text", ["", "{}", '{"node": 3}', "\0" * 100, '{"node": "3", "store": 1}'])
def test_a_damaged_file_is_refused_and_nothing_is_made_up(tmp_path: Path, text: str) -> None:
    path = tmp_path / FOLDER / NAME
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StartError, match="is damaged"):
        IdentityFile(str(tmp_path), 3)
    assert path.read_text(encoding="utf-8") == text


def test_a_file_that_was_being_written_does_not_count(tmp_path: Path) -> None:
    first = IdentityFile(str(tmp_path), 3)
    draft = tmp_path / FOLDER / "identity.new"
    draft.write_text("{", encoding="utf-8")
    assert IdentityFile(str(tmp_path), 3).value == first.value


def test_a_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file", encoding="utf-8")
    with pytest.raises(StartError, match="cannot be used"):
        IdentityFile(str(tmp_path), 3)
