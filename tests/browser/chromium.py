"""Headless Chromium, driven over its DevTools protocol: one page, its scripts, its complaints."""

import itertools
import json
import shutil
import subprocess
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from websockets.sync.client import connect

from tests.integration.supervised import until

NAMES: Final = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PATIENCE: Final = 60.0


class Page:
    """A page of a browser of its own; `complaints` are the errors that it has reported."""

    def __init__(self, home: Path) -> None:
        program = next(filter(None, map(shutil.which, NAMES)), None)
        assert program is not None, "no Chromium: scripts/setup installs chromium-headless-shell"
        self._browser = subprocess.Popen(
            [
                program,
                "--headless",
                # Tests run as root in containers, where Chromium's own sandbox cannot.
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--remote-debugging-port=0",
                f"--user-data-dir={home}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        announced = home / "DevToolsActivePort"
        until(
            lambda: announced.exists() and announced.read_text().strip(),
            "Chromium listens",
            PATIENCE,
        )
        port = announced.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE) as tabs:
            (tab,) = [each for each in json.load(tabs) if each["type"] == "page"]
        self._open = ExitStack()
        self._socket = self._open.enter_context(connect(tab["webSocketDebuggerUrl"], max_size=None))
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def open(self, address: str) -> None:
        """Go to an address and wait until it has loaded."""
        self._call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> object:
        """Return the value of an expression on the page."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression on the page is true."""
        until(lambda: self.run(script), script, PATIENCE)

    def close(self) -> None:
        """End the browser."""
        self._open.close()
        self._browser.kill()
        self._browser.wait()

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=PATIENCE))
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                result: dict[str, Any] = message["result"]
                return result
            self._hear(message)

    def _hear(self, event: dict[str, Any]) -> None:
        if event["method"] == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(event["params"]["exceptionDetails"]))
        elif event["method"] == "Log.entryAdded":
            entry = event["params"]["entry"]
            if entry["level"] == "error":
                self.complaints.append(entry["text"])
