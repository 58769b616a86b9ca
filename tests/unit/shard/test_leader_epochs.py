"""The epochs of leaders: where each began and ended."""

import pytest

from robustmq.errors import Corrupt
from robustmq.shard.leader_epochs import Begun, LeaderEpochs


def test_epochs_end_where_the_next_begins() -> None:
    epochs = LeaderEpochs()
    assert [epochs.begin(*each) for each in ((0, 0), (2, 10), (2, 11), (5, 30), (4, 40))] == [
        False,
        True,
        False,
        True,
        False,
    ]
    for _ in range(2):
        assert [epochs.at(offset) for offset in (0, 9, 10, 29, 30, 99)] == [0, 0, 2, 2, 5, 5]
        assert [epochs.end_of(epoch, 50) for epoch in (-1, 0, 1, 2, 3, 5, 6)] == [
            None,
            Begun(0, 10),
            Begun(0, 10),
            Begun(2, 30),
            Begun(2, 30),
            Begun(5, 50),
            None,
        ]
        again = LeaderEpochs()
        again.decode(epochs.encode())
        epochs = again
    assert list(epochs) == [Begun(2, 10), Begun(5, 30)]


def test_a_leader_that_has_appended_nothing_leaves_nothing() -> None:
    epochs = LeaderEpochs()
    epochs.begin(1, 7)
    epochs.begin(2, 7)
    assert list(epochs) == [Begun(2, 7)]
    assert epochs.end_of(1, 9) == Begun(0, 7)


def test_before_all_is_epoch_0() -> None:
    epochs = LeaderEpochs()
    assert (epochs.current, epochs.at(5), epochs.end_of(0, 8)) == (0, 0, Begun(0, 8))


def test_a_cut_history_is_corrupt() -> None:
    epochs = LeaderEpochs()
    epochs.begin(1, 7)
    with pytest.raises(Corrupt, match="cut"):
        LeaderEpochs().decode(epochs.encode()[:-1])
