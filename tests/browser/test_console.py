"""The MQTT console as a user sees it: mqtt.js over WebSocket in headless Chromium."""

import json
from collections.abc import Iterator

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.browser.chromium import Page
from tests.integration.supervised import ROOT, Node

STATIC = ROOT / "robustmq" / "admin" / "static"
LIBRARY = ROOT / "tests" / "integration" / "js" / "node_modules" / "mqtt"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("console") / "data", module="robustmq.cli.supervisor")
    yield node.ready()
    ended = node.seen("process ended")
    node.close()
    assert not ended


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    page = Page(tmp_path_factory.mktemp("chromium"))
    yield page
    page.close()


@pytest.fixture
def page(node: Node, browser: Page) -> Page:
    browser.complaints.clear()
    browser.open(f"http://{node.facts['http']}/")
    browser.until("document.getElementById('url').value !== ''")
    return browser


def fill(page: Page, **values: str) -> None:
    for name, value in values.items():
        place = f"document.getElementById('{name.replace('_', '-')}')"
        page.run(f"{place}.value = {json.dumps(value)}")


def click(page: Page, button: str) -> None:
    page.run(f"document.getElementById('{button}').click()")


def rows(page: Page) -> list[list[str]]:
    """Return topic, QoS and payload of the messages shown, the newest first."""
    found = page.run(
        "[...document.querySelectorAll('#messages tr')]"
        ".map((row) => [...row.cells].slice(1).map((cell) => cell.textContent))"
    )
    assert isinstance(found, list)
    return found


def online(page: Page, **values: str) -> None:
    fill(page, **values)
    click(page, "connect")
    page.until("document.getElementById('state').value === 'online'")


def subscribed(page: Page, topic_filter: str, qos: str) -> None:
    fill(page, filter=topic_filter, filter_qos=qos)
    click(page, "subscribe")
    page.until(f"document.querySelector('#filters li')?.dataset.filter === '{topic_filter}'")


@pytest.mark.parametrize("version", ["5", "4"])
def test_a_message_goes_round(node: Node, page: Page, version: str) -> None:
    online(page, version=version, client_id=f"console-{version}")
    subscribed(page, "console/#", "2")
    sent = '<img src="x" onerror="document.title = 1"> grüezi'
    fill(page, topic="console/one", topic_qos="1", payload=sent)
    click(page, "publish")
    page.until("document.getElementById('count').value === '1'")
    assert rows(page) == [["console/one", "1", sent]]
    other = paho.Client(CallbackAPIVersion.VERSION2, client_id="elsewhere")
    other.connect(*node.address())
    other.loop_start()
    other.publish("console/two", b"from elsewhere", qos=2).wait_for_publish(60)
    page.until("document.getElementById('count').value === '2'")
    assert rows(page)[0] == ["console/two", "2", "from elsewhere"]
    other.disconnect()
    other.loop_stop()
    click(page, "disconnect")
    page.until("document.getElementById('state').value === 'offline'")
    assert page.run("document.getElementById('notice').textContent") == ""
    assert page.complaints == []


def test_what_is_retained_is_shown_and_a_filter_left(page: Page) -> None:
    online(page)
    fill(page, topic="console/kept", topic_qos="1", payload="kept")
    page.run("document.getElementById('retain').checked = true")
    click(page, "publish")
    page.run("document.getElementById('retain').checked = false")
    subscribed(page, "console/kept", "1")
    page.until("document.getElementById('count').value === '1'")
    assert rows(page) == [["console/kept", "1 retained", "kept"]]
    page.run("document.querySelector('#filters button').click()")
    page.until("document.querySelector('#filters li') === null")
    click(page, "clear")
    assert rows(page) == []
    click(page, "disconnect")
    page.until("document.getElementById('state').value === 'offline'")
    assert page.complaints == []


def test_an_address_without_a_server_is_told(page: Page) -> None:
    address = str(page.run("document.getElementById('url').value"))
    fill(page, url=address.replace("/mqtt", "/elsewhere"))
    click(page, "connect")
    page.until("document.getElementById('notice').textContent !== ''")
    assert page.run("document.getElementById('state').value") == "offline"
    fill(page, url="no address")
    click(page, "connect")
    page.until("!document.getElementById('connect').disabled")
    fill(page, url=address)
    online(page)
    click(page, "disconnect")


def test_the_library_is_what_its_package_holds() -> None:
    for shipped, installed in (
        ("mqtt.min.js", "dist/mqtt.min.js"),
        ("mqtt.LICENSE.md", "LICENSE.md"),
    ):
        assert (STATIC / shipped).read_bytes() == (LIBRARY / installed).read_bytes(), (
            f"copy {installed} of the installed package to {STATIC / shipped}"
        )
