"""What is said of a producer's batch does not depend on where it lies."""

from types import ModuleType
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustmq.message.batch import Buffer
from robustmq.message.compression import Codec, compressed
from robustmq.shard import produced
from robustmq.shard.fault import Fault
from robustmq.shard.produced import Terms, Unfit, checked
from tests.kernels import implementations
from tests.produced import START_MS, restated
from tests.produced import produced as made

Said = tuple[Fault, str] | tuple[object, ...]

batches = st.builds(
    lambda values, key, codec, producer: compressed(made(*values, key=key, **producer), codec),
    st.lists(st.none() | st.binary(max_size=60), min_size=1, max_size=6),
    st.none() | st.binary(max_size=9),
    st.sampled_from(Codec),
    st.sampled_from([{}, {"producer": 7, "epoch": 1, "first": 3}]),
)
damages = st.one_of(
    st.none(),
    st.tuples(st.just("cut"), st.integers(0, 400), st.just(0)),
    st.tuples(st.just("byte"), st.integers(0, 400), st.integers(0, 255)),
    st.tuples(st.just("restated"), st.integers(21, 400), st.integers(0, 255)),
)
terms = st.builds(
    Terms,
    max_bytes=st.sampled_from([100, 1 << 20]),
    stamps=st.booleans(),
    before_ms=st.just(1 << 40),
    after_ms=st.just(1_000),
    needs_keys=st.booleans(),
    codec=st.sampled_from([None, *Codec]),
    checks_compressed=st.booleans(),
    most_bytes=st.sampled_from([100, 1 << 16]),
)


def _damaged(batch: bytes, damage: tuple[str, int, int] | None) -> bytes:
    if damage is None:
        return batch
    kind, at, byte = damage
    at %= len(batch)
    if kind == "cut":
        return batch[:at]
    if kind == "byte":
        return batch[:at] + bytes((byte,)) + batch[at + 1 :]
    return restated(batch, max(at, 21), bytes((byte,)))


def _said(batch: Buffer, terms: Terms) -> Said:
    try:
        found = checked(batch, terms, START_MS)
    except Unfit as error:
        return error.fault, error.detail
    return bytes(found.data), *found[1:]


@pytest.mark.parametrize("module", implementations("batch"))
@settings(max_examples=150)
@given(batches, damages, terms)
def test_a_batch_in_a_request_is_judged_as_one_of_its_own(
    module: ModuleType, batch: bytes, damage: tuple[str, int, int] | None, terms: Terms
) -> None:
    batch = _damaged(batch, damage)
    view = memoryview(b"\x02" * 30 + batch + b"\x02" * 30)[30:-30]
    with patch.object(produced, "survey", module.survey):
        assert _said(batch, terms) == _said(view, terms)
