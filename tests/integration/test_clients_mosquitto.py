"""The command-line clients of mosquitto against two workers: on the same core and across cores."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.integration.homes import PLACES, name_on, topic_on
from tests.integration.supervised import Node, until

PATIENCE: Final = 60
VERSIONS: Final = ("31", "311", "5")
MANY: Final = 10_000
LARGE: Final = bytes(range(256)) * (5 * 4_096)
MARK: Final = "MSG "


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("mosquitto") / "data", module="robustmq.cli.supervisor")
    yield node.ready()
    ended = node.seen("process ended")
    node.close()
    assert not ended


def command(node: Node, program: str, core: int, *arguments: str, name: str = "") -> list[str]:
    host, port = node.address()
    client_id = name or name_on(core, "m")
    return [program, "-h", host, "-p", str(port), "-i", client_id, *arguments]


def publish(node: Node, core: int, topic: str, *arguments: str, stdin: bytes | None = None) -> None:
    """Run mosquitto_pub to its end."""
    line = command(node, "mosquitto_pub", core, "-t", topic, *arguments)
    done = subprocess.run(line, input=stdin, capture_output=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, b""), done


class Subscriber:
    """A running mosquitto_sub that has its SUBACK; `heard` are the lines of its format."""

    def __init__(
        self, node: Node, core: int, *arguments: str, form: str = "%p", name: str = ""
    ) -> None:
        line = command(node, "mosquitto_sub", core, *arguments, name=name)
        # By itself it would keep its output until it ends: a pipe is not a terminal.
        self._process = subprocess.Popen(
            ["stdbuf", "-oL", *line, "-d", "-W", str(PATIENCE), "-F", MARK + form],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self._heard: list[str] = []
        self._read_until("Subscribed")

    def heard(self) -> list[str]:
        """Wait until it has what it waits for (-C) and return it."""
        last = self._read_until(None)
        assert self._process.wait(PATIENCE) == 0, (last, len(self._heard))
        self._output.close()
        return self._heard

    def kill(self) -> None:
        """End it without DISCONNECT."""
        self._process.kill()
        self._process.wait(PATIENCE)
        self._output.close()

    def stop(self) -> None:
        """End it in order."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(PATIENCE)
        self._output.close()

    def _read_until(self, beginning: str | None) -> str:
        """Read lines up to one that begins so, or to the end; return the last one."""
        text = ""
        for text in self._output:
            if text.startswith(MARK):
                self._heard.append(text.removeprefix(MARK).rstrip("\n"))
            if beginning is not None and text.startswith(beginning):
                return text
        # What a session kept may be all that it waits for, and come before the SUBACK.
        assert beginning is None or self._heard, f"no {beginning}: {text}"
        return text


@pytest.mark.parametrize("version", VERSIONS)
def test_live_messages_of_every_quality(node: Node, version: str) -> None:
    for publisher_core, subscriber_core in PLACES:
        topics = [topic_on(owner, "mosquitto/{}/live") for owner in (0, 1)]
        both = ("-t", topics[0], "-t", topics[1], "-C", "6")
        subscriber = Subscriber(
            node, subscriber_core, "-V", version, "-q", "2", *both, form="%t %q %r %p"
        )
        for topic in topics:
            for qos in ("0", "1", "2"):
                publish(node, publisher_core, topic, "-V", version, "-q", qos, "-m", f"m{qos}")
        # Each message has a publisher of its own, so that there is no order between them.
        wanted = [f"{topic} {qos} 0 m{qos}" for topic in topics for qos in range(3)]
        assert sorted(subscriber.heard()) == sorted(wanted)


@pytest.mark.parametrize("version", VERSIONS)
def test_retained_messages_and_wildcards(node: Node, version: str) -> None:
    for publisher_core, subscriber_core in PLACES:
        root = name_on(0, f"retained{version}-")
        for number in range(8):
            topic = f"{root}/{number}/state"
            publish(node, publisher_core, topic, "-V", version, "-r", "-q", "1", "-m", str(number))
        publish(node, publisher_core, f"{root}/5/state", "-V", version, "-r", "-q", "1", "-n")
        for topic_filter in (f"{root}/+/state", f"{root}/#"):
            subscriber = Subscriber(
                node,
                subscriber_core,
                "-V",
                version,
                "-q",
                "1",
                "-t",
                topic_filter,
                "-C",
                "7",
                form="%t %q %r %p",
            )
            wanted = [f"{root}/{number}/state 1 1 {number}" for number in range(8) if number != 5]
            assert sorted(subscriber.heard()) == wanted


@pytest.mark.parametrize("version", VERSIONS)
def test_a_persistent_session_keeps_what_comes_meanwhile(node: Node, version: str) -> None:
    durable = ["-V", version, "-c", "-q", "2"]
    if version == "5":
        durable += ["-x", "3600"]
    for publisher_core, subscriber_core in PLACES:
        name = name_on(subscriber_core, "durable")
        topics = [topic_on(owner, "mosquitto/{}/offline") for owner in (0, 1)]
        filters = ["-t", topics[0], "-t", topics[1]]
        subscribed = command(node, "mosquitto_sub", 0, *durable, *filters, "-E", name=name)
        assert subprocess.run(subscribed, timeout=PATIENCE, check=False).returncode == 0
        for topic in topics:
            for qos in ("1", "2"):
                publish(node, publisher_core, topic, "-q", qos, "-m", f"{topic} {qos}")
        again = Subscriber(
            node, subscriber_core, *durable, *filters, "-C", "4", form="%p %q", name=name
        )
        heard = again.heard()
        for topic in topics:
            mine = [text for text in heard if text.startswith(topic)]
            assert mine == [f"{topic} {qos} {qos}" for qos in (1, 2)]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_will_follows_a_kill(node: Node, version: str) -> None:
    for lost_core, subscriber_core in PLACES:
        topic = topic_on(lost_core, "mosquitto/{}/will")
        subscriber = Subscriber(
            node, subscriber_core, "-V", version, "-q", "1", "-t", topic, "-C", "1", form="%q %p"
        )
        will = ("--will-topic", topic, "--will-payload", "lost", "--will-qos", "1")
        Subscriber(node, lost_core, "-V", version, "-t", "nothing", *will).kill()
        assert subscriber.heard() == ["1 lost"]


@pytest.mark.parametrize("version", ["311", "5"])
def test_a_shared_subscription_divides_the_messages(node: Node, version: str) -> None:
    topic = topic_on(1, "mosquitto/{}/shared")
    members = [
        Subscriber(node, core, "-V", version, "-q", "1", "-t", f"$share/crew/{topic}", "-C", "100")
        for core in (0, 0, 1)
    ]
    lines = b"".join(b"%d\n" % number for number in range(300))
    publish(node, 0, topic, "-V", version, "-q", "1", "-l", stdin=lines)
    shares = [[int(text) for text in member.heard()] for member in members]
    assert sorted(number for share in shares for number in share) == [*range(300)]
    assert all(share == sorted(share) for share in shares)


@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_many_lines_arrive_in_order(node: Node, qos: str) -> None:
    for publisher_core, subscriber_core in ((0, 1), (1, 1)):
        topic = topic_on(0, "mosquitto/{}/order")
        subscriber = Subscriber(node, subscriber_core, "-q", qos, "-t", topic, "-C", str(MANY))
        lines = b"".join(b"%d\n" % number for number in range(MANY))
        publish(node, publisher_core, topic, "-q", qos, "-l", stdin=lines)
        assert [int(text) for text in subscriber.heard()] == [*range(MANY)]


def test_a_large_file_arrives_whole(node: Node, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(LARGE)
    for publisher_core, subscriber_core in PLACES:
        topic = topic_on(1 - subscriber_core, "mosquitto/{}/large")
        publish(node, publisher_core, topic, "-q", "2", "-r", "-f", str(source))
        line = command(
            node, "mosquitto_sub", subscriber_core, "-q", "2", "-t", topic, "-C", "1", "-N"
        )
        with target.open("wb") as out:
            assert subprocess.run(line, stdout=out, timeout=PATIENCE, check=False).returncode == 0
        assert target.read_bytes() == LARGE


def test_the_properties_of_version_5_are_shown(node: Node) -> None:
    sent = ["-V", "5", "-q", "1", "-m", "with", "-D", "publish", "user-property", "a", "1"]
    sent += ["-D", "publish", "user-property", "b", "2", "-D", "publish", "content-type", "text/x"]
    sent += ["-D", "publish", "response-topic", "to/me", "-D", "publish", "correlation-data", "c7"]
    sent += ["-D", "publish", "payload-format-indicator", "1"]
    sent += ["-D", "publish", "message-expiry-interval", "600"]
    for publisher_core, subscriber_core in PLACES:
        topic = topic_on(publisher_core, "mosquitto/{}/properties")
        subscriber = Subscriber(
            node,
            subscriber_core,
            "-V",
            "5",
            "-q",
            "1",
            "-t",
            topic,
            "-C",
            "1",
            "-D",
            "subscribe",
            "subscription-identifier",
            "9",
            form="%C|%D|%F|%R|%P|%S|%E|%p",
        )
        publish(node, publisher_core, topic, *sent)
        (line,) = subscriber.heard()
        content, data, indicator, response, user, identifier, expiry, payload = line.split("|")
        assert (content, data, indicator, response) == ("text/x", "c7", "1", "to/me")
        assert (user, identifier, payload) == ("a:1 b:2", "9", "with")
        assert 0 < int(expiry) <= 600


@pytest.mark.parametrize("version", ["311", "5"])
def test_a_request_is_answered(node: Node, version: str) -> None:
    for asking_core, answering_core in PLACES:
        ask = topic_on(asking_core, "mosquitto/{}/ask")
        answer = topic_on(answering_core, "mosquitto/{}/answer")
        responder = Subscriber(node, answering_core, "-V", version, "-t", ask, "-C", "1")
        request = command(
            node,
            "mosquitto_rr",
            asking_core,
            "-V",
            version,
            "-q",
            "1",
            "-t",
            ask,
            "-e",
            answer,
            "-m",
            "how?",
            "-W",
            str(PATIENCE),
        )
        with subprocess.Popen(request, stdout=subprocess.PIPE, text=True) as asking:
            assert responder.heard() == ["how?"]
            publish(node, answering_core, answer, "-q", "1", "-m", "so")
            assert asking.communicate(timeout=PATIENCE)[0] == "so\n"


def test_a_second_client_of_the_name_ends_the_first(node: Node) -> None:
    name = name_on(1, "twice")
    first = Subscriber(node, 1, "-V", "5", "-t", "x", "-C", "1", name=name)
    second = Subscriber(node, 1, "-V", "5", "-t", "x", "-C", "1", name=name)
    until(lambda: node.sample('mqtt_sessions_taken_over_total{core="1"}') >= 1, "the take-over")
    first.kill()
    second.stop()
