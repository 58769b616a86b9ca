"""Runs the public suites against this server and writes docs/suites.md.

`--from DIRECTORY` has checkouts named `paho` and `mosquitto`; without it they are cloned. What
does not pass has to be in findings.toml with its reason, and what is there has to fail.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, NamedTuple

from tests.integration.mosquitto import fixed_port
from tests.integration.supervised import Node

ROOT: Final = Path(__file__).resolve().parents[2]
FINDINGS: Final = Path(__file__).with_name("findings.toml")
DOCUMENT: Final = ROOT / "docs" / "suites.md"
SOURCES: Final = {
    "paho": "https://github.com/eclipse/paho.mqtt.testing",
    "mosquitto": "https://github.com/eclipse/mosquitto",
}
_ACROSS: Final = re.MULTILINE | re.DOTALL
_TIMEOUT: Final = 600
_LONG: Final = 1_800
_AT_ONCE: Final = 5
_PART: Final = re.compile(r"helper|-core\.py$")
"""Scripts that are parts of others."""
_COLOUR: Final = re.compile(r"\x1b\[\d+m")
_RULES: Final = """
[mqtt_runtime.protocol]
receive_max = 20
[mqtt_runtime.keep_alive]
max_time = 60
{rules}[[acl]]
permission = "Deny"
action = "Subscribe"
topic = "test/nosubscribe"
"""
_TOLERANT: Final = (
    "from tests.suites.tolerant import expect_packet, packet_matches, receive_unordered\n"
)
_IN_HELPER: Final = (
    ("delay = 0.1", "delay = 0.5"),
    ("range(0, 20)", "range(0, 600)"),
    (
        "        time.sleep(delay)\n",
        "        if broker.poll() is not None: break\n        time.sleep(delay)\n",
    ),
)
"""Several processes may take a while to begin on a busy machine, and need not when they cannot."""
_IN_SEQUENCES: Final = (
    ("import mosq_test\n", "import mosq_test\nfrom tests.suites import tolerant\n"),
    ("sock.recv(len(msg.message))", "tolerant.read(sock)"),
    ("data != msg.message", "not tolerant.packet_matches('packet', data, msg.message)"),
    ("data = sock.recv(1)", "data = tolerant.last_words(sock)"),
    ("port=1888", "port=mosq_test.get_port()"),
)
"""What `msg_sequence_test` compares and connects to by itself."""
_MARK: Final = "<!-- what follows is written by scripts/suites -->"
_CLEANING: Final = '[[acl]]\npermission = "Allow"\naction = "Subscribe"\ntopic = "eq {0}"\n'


class Result(NamedTuple):
    """What became of a test: the last it said, "" when it passed."""

    name: str
    said: str


def _environment() -> dict[str, str]:
    # Scripts that tests start by themselves find this Python.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def _run(line: list[str], place: Path, timeout: float = _TIMEOUT) -> tuple[int, str]:
    """Run a test; a server that it leaves behind ends with it."""
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(
            line,
            cwd=place,
            env=_environment(),
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            status = 1
            said.write(f"\nno end in {timeout} s")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        said.seek(0)
        return status, said.read()


def paho(source: Path, scratch: Path) -> Iterator[Result]:
    """Run the client tests of Eclipse Paho for both versions."""
    config = scratch / "paho.toml"
    config.write_text(_RULES.format(rules="".join(map(_CLEANING.format, ("#", "+/+")))))
    node = Node(scratch / "paho-data", "-c", str(config), module="robustmq.cli.supervisor")
    try:
        host, port = node.ready().address()
        for script in ("client_test.py", "client_test5.py"):
            line = [sys.executable, "-m", "tests.suites.paho_driver", script, host, str(port)]
            _, text = _run(line, source / "interoperability", _LONG)
            yield from _unittests(source / "interoperability" / script, text)
    finally:
        node.close()


def _unittests(script: Path, text: str) -> Iterator[Result]:
    if not re.search(r"^Ran \d+ tests", text, re.MULTILINE):
        yield Result(script.name, text[-2_000:])
        return
    failed = dict(re.findall(r"^(?:FAIL|ERROR): (\w+) .*?\n(.*?)\n={9}", text + "=" * 9, _ACROSS))
    for name in re.findall(r"^ +def (test\w*)\(self\)", script.read_text(), re.MULTILINE):
        yield Result(f"{script.name} {name}", failed.get(name, "")[-2_000:])


def _adapted(source: Path, scratch: Path) -> Path:
    """Copy mosquitto's tests, with this server in the place of mosquitto."""
    place = scratch / "mosquitto"
    shutil.copytree(source / "test", place / "test", symlinks=True)
    program = place / "src" / "mosquitto"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.suites.stand_in "$@"\n')
    program.chmod(0o755)
    helper = place / "test" / "mosq_test.py"
    _replace(helper, _IN_HELPER)
    helper.write_text(f"{helper.read_text()}\n{_TOLERANT}")
    _replace(place / "test" / "broker" / "msg_sequence_test.py", _IN_SEQUENCES)
    return place / "test" / "broker"


def _replace(script: Path, changes: tuple[tuple[str, str], ...]) -> None:
    text = script.read_text()
    for before, after in changes:
        if before not in text:
            raise SystemExit(f"{script.name} has no longer: {before}")
        text = text.replace(before, after)
    script.write_text(text)


def mosquitto(place: Path, pattern: str) -> Iterator[Result]:
    """Run the tests of mosquitto's broker, each with a server of its own."""
    scripts = [path.name for path in sorted(place.glob("[01]*.py")) if not _PART.search(path.name)]
    scripts = [name for name in scripts if fnmatchcase(name, pattern)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(lambda name: _script(place, name), scripts)


def _script(place: Path, name: str) -> Result:
    # A test takes its ports from its arguments when there are as many as it needs.
    needs = re.search(rf"\((\d), *'\./{re.escape(name)}'", (place / "test.py").read_text())
    ports = [str(fixed_port()) for _ in range(int(needs[1]) if needs else 1)]
    status, text = _run([sys.executable, f"./{name}", *ports], place)
    cannot = place / f"{name.removesuffix('.py')}.conf.cannot"
    if cannot.exists():
        return Result(name, f"setting: {cannot.read_text()}")
    return Result(name, "" if status == 0 else text.strip()[-2_000:] or f"status {status}")


def _sequences(place: Path) -> Iterator[Result]:
    _, text = _run([sys.executable, "./msg_sequence_test.py", str(fixed_port())], place, _LONG)
    total = 0
    for line in _COLOUR.sub("", text).splitlines():
        name, failed, said = line.partition(" failed: ")
        if failed:
            yield Result(f"msg_sequence {name}", said)
        elif found := re.fullmatch(r"(\d+) tests total", line):
            total = int(found[1])
        elif not line.startswith(("FAIL", "Received", "Expected")) and " tests " not in line:
            yield Result(f"msg_sequence {line}", "")
    if not total:
        yield Result("msg_sequence", text[-2_000:])


def _finding(result: Result, findings: dict[str, str]) -> str | None:
    """The pattern that explains a test, "setting" for one that asks for what we have not."""
    if result.said.startswith("setting: "):
        return "setting"
    return next((known for known in findings if fnmatchcase(result.name, known)), None)


def _needless(results: list[Result], findings: dict[str, str]) -> list[str]:
    """The patterns that fit tests of which none fails."""
    fitting = {_finding(each, findings) for each in results}
    failing = {_finding(each, findings) for each in results if each.said}
    return [known for known in findings if known in fitting - failing]


def document(counts: str, findings: dict[str, str]) -> str:
    """Write the page: what the last run counted, and every finding."""
    head, _, _ = DOCUMENT.read_text(encoding="utf-8").partition(_MARK)
    rows = [f"| `{name.replace('|', '/')}` | {why} |" for name, why in findings.items()]
    own = "| tests whose configuration has a setting that we have not | mosquitto's own setting |"
    lines = [_MARK, "", f"The last whole run: {counts}.", ""]
    lines += ["| what does not pass | why |", "|---|---|", own, *rows]
    return head + "\n".join(lines) + "\n"


def _counted(results: list[Result]) -> str:
    groups = {
        "Paho": "client_test",
        "mosquitto's sequences": "msg_seq",
        "mosquitto's scripts": "[01]",
    }
    told = []
    for title, beginning in groups.items():
        mine = [each for each in results if fnmatchcase(each.name, f"{beginning}*")]
        passed = sum(not each.said for each in mine)
        foreign = sum(each.said.startswith("setting: ") for each in mine)
        told.append(
            f"{title} {passed} of {len(mine)}" + f" ({foreign} ask for settings)" * bool(foreign)
        )
    return ", ".join(told)


def main() -> int:
    """Run what is asked for; 1 when something is found that nobody has explained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="source", type=Path)
    parser.add_argument("--only", default="*", help="a pattern of mosquitto's tests; no page then")
    chosen = parser.parse_args()
    findings: dict[str, str] = tomllib.loads(FINDINGS.read_text(encoding="utf-8"))["findings"]
    with tempfile.TemporaryDirectory(prefix="suites-") as directory:
        scratch = Path(directory)
        source = chosen.source or scratch
        for name, address in SOURCES.items():
            if not (source / name).is_dir():
                subprocess.run(
                    ["git", "clone", "-q", "--depth", "1", address, source / name], check=True
                )
        results = [_told(each, findings) for each in _all(source, scratch, chosen.only)]
    untraced = sum(bool(each.said) and _finding(each, findings) is None for each in results)
    passed = sum(not each.said for each in results)
    for known in _needless(results, findings):
        print(f"passes, but has a finding: {known}")
    print(f"{len(results)} tests, {passed} pass, {untraced} untraced")
    if chosen.only == "*":
        DOCUMENT.write_text(document(_counted(results), findings), encoding="utf-8")
    return 1 if untraced else 0


def _all(source: Path, scratch: Path, pattern: str) -> Iterator[Result]:
    """Run the suites beside each other, for they mostly wait."""
    place = _adapted(source / "mosquitto", scratch)
    with ThreadPoolExecutor(2) as pool:
        aside = []
        if pattern in {"*", "paho"}:
            aside.append(pool.submit(lambda: [*paho(source / "paho", scratch)]))
        if fnmatchcase("msg_sequence", pattern):
            aside.append(pool.submit(lambda: [*_sequences(place)]))
        yield from mosquitto(place, pattern)
        for suite in aside:
            yield from suite.result()


def _told(result: Result, findings: dict[str, str]) -> Result:
    """Say what nobody has explained."""
    if result.said and _finding(result, findings) is None:
        indented = result.said.replace("\n", "\n    ")
        print(f"UNTRACED {result.name}\n    {indented}", flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
