"""Log lines: JSON for machines, sentences for people, nothing lost in between."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from robustmq.config import Log
from robustmq.workers import log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("robustmq")
    handlers, levels = [*root.handlers], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def configured(config: Log) -> io.StringIO:
    stream = io.StringIO()
    log.configure(config, "worker 3", stream)
    return stream


def test_without_a_terminal_a_line_is_a_json_object() -> None:
    stream = configured(Log())
    log.EventLog("test").info("worker ready", core=1, path=object)
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "process": "worker 3",
        "event": "worker ready",
        "core": 1,
        "path": "<class 'object'>",
    }


def test_human_lines_quote_what_would_mislead() -> None:
    stream = configured(Log(format="human"))
    log.EventLog("test").warning("slow", name="worker 1", text="a\nb", none="", core=2)
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert "WARNING worker 3" in line
    assert line.endswith("slow  name='worker 1'  text='a\\nb'  none=''  core=2\n")


@pytest.mark.parametrize("form", ["human", "json"])
def test_an_error_in_an_except_block_carries_its_traceback(form: str) -> None:
    stream = configured(Log(format="human" if form == "human" else "json"))
    try:
        raise OSError("torn")
    except OSError:
        log.EventLog("test").error("failed")
    assert "OSError: torn" in stream.getvalue()
    assert stream.getvalue().count("\n") == (1 if form == "json" else 5)


def test_the_level_can_be_changed_and_spares_us_the_libraries() -> None:
    stream = configured(Log(level="warning"))
    log.EventLog("test").info("hidden")
    log.apply_level(Log(level="debug"))
    log.EventLog("test").debug("shown")
    logging.getLogger("uvicorn.error").info("not ours")
    logging.getLogger("uvicorn.error").warning("not %s", "ours")
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events == ["shown", "not ours"]
