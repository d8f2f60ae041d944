from __future__ import annotations

import json
import time
import tracemalloc

import numpy as np
import pytest
import xgboost
from hypothesis import example, given
from hypothesis import strategies as st

from spikemeter.predictor.ubjson import read_ubjson, write_ubjson

KINDS = ["i1", "u1", "i2", "i4", "i8", "f4", "f8"]
EIGHT = (8).to_bytes(8, "big")


@pytest.fixture(scope="module")
def booster():
    rng = np.random.default_rng(0)
    rows = xgboost.DMatrix(rng.random((100, 4)), label=rng.random(100), nthread=1)
    return xgboost.train({"max_depth": 3, "nthread": 1}, rows, num_boost_round=2)


def plain(value):
    """Give a value with lists in the place of arrays."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [plain(each) for each in value] if isinstance(value, list) else value


def close(ours, theirs):
    """Whether values are equal, but for the digits that XGBoost writes of a float."""
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(close(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(close, ours, theirs))
    return ours == (pytest.approx(theirs, rel=1e-6) if isinstance(ours, float) else theirs)


def test_a_model_of_xgboost_reads_as_its_json_says(booster):
    ours = plain(read_ubjson(bytes(booster.save_raw("ubj"))))
    assert close(ours, json.loads(bytes(booster.save_raw("json"))))


arrays = st.sampled_from(KINDS).flatmap(
    lambda kind: st.lists(st.integers(0, 100), max_size=5).map(
        lambda numbers: np.array(numbers, dtype=kind)
    )
)
values = st.recursive(
    st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8) | arrays,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


def kinds(value):
    """Types of all arrays inside, in order."""
    if isinstance(value, np.ndarray):
        return [value.dtype.newbyteorder("=")]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [kind for each in inner for kind in kinds(each)]


@given(values)
def test_what_is_written_is_read_again(value):
    again = read_ubjson(write_ubjson(value))
    assert plain(again) == plain(value)
    assert kinds(again) == kinds(value)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"i\xff", -1),
        (b"U\xff", 255),
        (b"I\x01\x00", 256),
        (b"l\xff\xff\xff\xfe", -2),
        (b"L" + EIGHT, 8),
        (b"d\x3f\xc0\x00\x00", 1.5),
        (b"D\xbf\xf8" + bytes(6), -1.5),
        (b"Z", None),
        (b"T", True),
        (b"F", False),
        (b"SU\x02\xc3\xa4", "ä"),
        (b"[]", []),
        (b"[i\x01[Z]]", [1, [None]]),
        (b"[#i\x02TF", [True, False]),
        (b"{i\x01aTi\x00Z}", {"a": True, "": None}),
    ],
)
def test_every_type_of_the_format_is_read(content, value):
    assert read_ubjson(content) == value


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "end in the middle"),
        (b"[", "end in the middle"),
        (b"{i\x01a", "end in the middle"),
        (b"SU\x05abc", "end in the middle"),
        (b"I\x01", "end in the middle"),
        (b"TT", "1 bytes follow the end"),
        (b"N", "'N' at byte 0 is no type"),
        (b"\x00", "is no type"),
        (b"SU\x01\xff", "is not UTF-8"),
        (b"{U\x02\xff\xfeZ}", "is not UTF-8"),
        (b"Si\xffabc", "a length of -1"),
        (b"Sd\x00\x00\x00\x00", "a length of type 'd'"),
        (b"{i\x01aTi\x01aF}", "the key 'a' stands twice"),
        (b"[$lT", "has no length"),
        (b"[$S#i\x01i\x01a", "an array of 1 values of type 'S'"),
        (b"[$[#i\x01", "an array of 1 values of type '\\['"),
        (b"[$Z#l\x7f\xff\xff\xff", "an array of 2147483647 values of type 'Z'"),
        (b"[#i\x02T", "an array of 2 values"),
        (b"{#i\x00", "a length of type '#'"),
        (b"{$Z#i\x01i\x01a", "a length of type '\\$'"),
    ],
)
def test_anything_else_is_refused(content, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_ubjson(content)


@pytest.mark.parametrize("opening", [b"[$L#", b"[$U#", b"[#", b"S", b"[$D#"])
@pytest.mark.parametrize("count", [b"l\x7f\xff\xff\xff", b"L\x7f" + b"\xff" * 7, b"U\xff"])
def test_a_length_beyond_the_bytes_costs_nothing(opening, count):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"end in the middle|an array of"):
            read_ubjson(opening + count + b"\x00" * 64)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_nesting_ends_somewhere():
    assert read_ubjson(b"[" * 17 + b"]" * 17)
    for opening in (b"[", b"[#i\x01", b"{i\x01a"):
        with pytest.raises(ValueError, match="nested more than 16 deep"):
            read_ubjson(opening * 100_000)


@pytest.mark.parametrize("many", [b"Z", b"[]", b"{}", b"[#i\x00", b"Si\x00"])
def test_values_are_many_but_not_at_will(many):
    start = time.process_time()
    with pytest.raises(ValueError, match="more than 200000 values"):
        read_ubjson(b"[" + many * 4_000_000 + b"]")
    assert time.process_time() - start < 5


def test_every_value_counts_once():
    assert len(read_ubjson(b"[" + b"Z" * 199_999 + b"]")) == 199_999
    with pytest.raises(ValueError, match="more than 200000 values"):
        read_ubjson(b"[" + b"Z" * 200_000 + b"]")


def test_no_beginning_of_a_model_is_a_model(booster):
    content = bytes(booster.save_raw("ubj"))
    for end in range(len(content)):
        with pytest.raises(ValueError, match=r"in the middle|an array of"):
            read_ubjson(content[:end])


@given(st.binary(max_size=40))
@example(b"[$U#[$U#i\x01i\x01")
@example(b"{i\x01a{i\x01a[}}")
def test_bytes_are_a_value_or_refused(content):
    try:
        value = read_ubjson(content)
    except ValueError:  # any other error fails
        return
    assert value is None or isinstance(value, dict | list | np.ndarray | str | int | float)
