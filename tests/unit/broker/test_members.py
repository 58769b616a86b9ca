"""The members of a filter: one or many, they behave as a dict."""

from array import array

from robustmq import metrics
from robustmq._kernel.turn import Turn
from robustmq._kernel.window import Window
from robustmq.broker.api import Options
from robustmq.broker.members import Members, each_member, is_member, with_member, without_member


def test_one_and_many_behave_as_a_dict() -> None:
    turn = Turn(array("Q", bytes(8 * metrics.CELLS)))
    windows = [Window(turn, 1, 1, 1) for _ in range(3)]
    members: Members | None = None
    model: dict[Window, Options] = {}
    for number, window in enumerate([*windows, windows[1], windows[0]]):
        members = with_member(members, window, Options(number % 3))
        model[window] = Options(number % 3)
        assert dict(each_member(members)) == model
        assert [is_member(members, each) for each in windows] == [w in model for w in windows]
    for window in (windows[2], windows[2], *windows[:2]):
        assert members is not None
        members = without_member(members, window)
        model.pop(window, None)
        assert dict(each_member(members)) == model
    assert members is None
    assert not is_member(None, windows[0])


def test_one_that_is_not_there_is_not_taken_out() -> None:
    turn = Turn(array("Q", bytes(8 * metrics.CELLS)))
    one, other = Window(turn, 1, 1, 1), Window(turn, 1, 1, 1)
    members = with_member(None, one, Options(1))
    assert without_member(members, other) is members
    assert with_member(members, one, Options(2)) == (one, Options(2))
