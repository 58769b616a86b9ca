"""Laws of PROXY headers: any split means the same, and nothing raises but Broken."""

from hypothesis import given
from hypothesis import strategies as st

from robustmq.net.layer import Broken, Facts
from robustmq.net.proxy import SIGNATURE, ProxyLayer, parse

MOST = 512

versions_1 = st.builds(
    lambda address, ports: (
        b"PROXY TCP%d %s %s %d %d\r\n"
        % (address.version, str(address).encode(), str(address).encode(), *ports)
    ),
    st.ip_addresses(),
    st.tuples(st.integers(0, 65_535), st.integers(0, 65_535)),
)
bodies = st.binary(max_size=300)
versions_2 = st.builds(
    lambda command, family, body: (
        SIGNATURE + bytes((command, family)) + len(body).to_bytes(2, "big") + body
    ),
    st.sampled_from([0x20, 0x21]) | st.integers(0, 255),
    st.sampled_from([0x00, 0x11, 0x21, 0x31]) | st.integers(0, 255),
    bodies,
)
anything = versions_1 | versions_2 | st.binary(max_size=200)


def outcome(pieces: list[bytes]) -> object:
    layer = ProxyLayer(MOST, takes_user=True)
    rest = b""
    try:
        for piece in pieces:
            rest += layer.receive(piece)
    except Broken:
        return "broken"
    if not layer.is_open:
        return "open"
    facts = Facts("local")
    layer.tell(facts)
    return rest, facts


@given(anything, st.binary(max_size=20), st.lists(st.integers(1, 40), max_size=30))
def test_any_split_means_the_same(header: bytes, rest: bytes, sizes: list[int]) -> None:
    data = header + rest
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    pieces.append(data[at:])
    assert outcome(pieces) == outcome([data])


@given(versions_1)
def test_version_1_names_the_client(header: bytes) -> None:
    parsed = parse(header, MOST)
    assert parsed is not None
    assert parsed.length == len(header)
    assert parsed.address == header.split()[2].decode()
