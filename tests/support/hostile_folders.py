"""Predictor folders as a stranger may send them: damaged, with sizes and checksums that fit."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from spikemeter.predictor.ensemble import Ensemble, read_ensemble
from spikemeter.predictor.folder import read_folder, write_folder
from spikemeter.predictor.ubjson import read_ubjson, write_ubjson

__all__ = ["Files", "damaged", "fitting", "hostile_tables", "made_on_purpose", "write_small"]

Files = dict[str, bytes]

_TREE_KEYS = ("left_children", "right_children", "split_indices", "split_conditions",
              "sum_hessian", "split_type", "parents", "default_left", "base_weights",
              "categories_sizes", "tree_param")  # fmt: skip


def write_small(good: Path, path: Path, *, trees: int = 4) -> None:
    """Write a predictor folder like another one, but with a few trees, which is read in no time."""
    parts = read_folder(good)
    ensembles = {name: _small(each, trees) for name, each in parts.model.ensembles.items()}
    forecaster = replace(parts.forecaster, ensemble=_small(parts.forecaster.ensemble, trees))
    model = replace(parts.model, ensembles=ensembles)
    write_folder(replace(parts, model=model, forecaster=forecaster), path)


def _small(ensemble: Ensemble, trees: int) -> Ensemble:
    model = read_ubjson(ensemble.content)
    inner = model["learner"]["gradient_booster"]["model"]
    inner["trees"] = inner["trees"][:trees]
    inner["gbtree_model_param"]["num_trees"] = str(len(inner["trees"]))
    return read_ensemble(write_ubjson(model))


# What is done to a folder


class Raw(str):
    """Text that stands in a JSON file as it is."""


class RawBytes(bytes):
    """Bytes that stand in a UBJSON file as they are."""


def fitting(files: Mapping[str, bytes]) -> Files:
    """Make sizes and checksums of the manifest fit the other files."""
    manifest = json.loads(files["manifest.json"])
    for name, content in files.items():
        if name != "manifest.json":
            digest = hashlib.sha256(content).hexdigest()
            manifest["files"][name] = {"sha256": digest, "bytes": len(content)}
    return {**files, "manifest.json": json.dumps(manifest).encode()}


def json_of(value: Any) -> bytes:
    """Write JSON, with `Raw` as it is, and lone surrogates as they stand in a JSON file."""
    raw: list[str] = []

    def marked(each: Any) -> Any:
        if isinstance(each, Raw):
            raw.append(str(each))
            return f"@raw{len(raw) - 1}@"
        if isinstance(each, dict):
            return {key: marked(inner) for key, inner in each.items()}
        return [marked(inner) for inner in each] if isinstance(each, list) else each

    text = json.dumps(marked(value))
    for number, content in enumerate(raw):
        text = text.replace(f'"@raw{number}@"', content)
    return text.encode()


def ubjson_of(value: Any) -> bytes:
    """Write UBJSON as `write_ubjson` does, and of more types."""
    if isinstance(value, RawBytes):
        return bytes(value)
    if value is None or isinstance(value, bool):
        return {None: b"Z", True: b"T", False: b"F"}[value]
    if isinstance(value, float):
        return b"D" + struct.pack(">d", value)
    if isinstance(value, dict):
        items = (write_ubjson(key)[1:] + ubjson_of(each) for key, each in value.items())
        return b"{" + b"".join(items) + b"}"
    if isinstance(value, list):
        return b"[" + b"".join(map(ubjson_of, value)) + b"]"
    return write_ubjson(value)


_ODD_NUMBERS = (0, -1, 1, 2, 7, 2**31 - 1, 2**31, -(2**31), 2**62, -(2**63), 31, 32, 10**6)
_ODD_FLOATS = (math.nan, math.inf, -math.inf, 1e308, -1e308, 3e38, -3e38, 1e-45, -0.0, 0.5, 501.0)
_ODD_JSON = (
    *_ODD_NUMBERS, *_ODD_FLOATS, 10**30, True, None, "", "x", "nan", "x" * 5000, "\x1b[2J\n\r",
    "\ud800", "../../etc/passwd", "/etc/passwd", [], {}, [[]], [None], [1.0] * 16, [0] * 5000,
    {"a": 1}, Raw("1e999"), Raw("-1e999"), Raw("1" * 400), Raw("1" * 5000),
    Raw("[" * 150 + "]" * 150), Raw("[" * 900 + "]" * 900), Raw("[" * 50_000 + "]" * 50_000),
    Raw("tru"), Raw('{"a":1,"a":2}'), Raw("[1,]"), Raw("//"), Raw("'x'"), Raw("NaN"), Raw("01"),
)  # fmt: skip
_ODD_UBJSON = (
    *_ODD_NUMBERS, *_ODD_FLOATS, True, None, "", "1", "0", "-1", "99999999999999999999", "nan",
    "1e400", "x" * 3000, "9" * 5000, [], {}, [0] * 3, [[]], {"learner": {}},
    np.zeros(0, dtype="i4"), np.zeros(3, dtype="i8"), np.full(7, -1, dtype="i4"),
    np.full(7, np.nan, dtype="f4"), np.zeros(15, dtype="f8"), np.zeros(100_000, dtype="u1"),
    np.arange(7, dtype="i2"), RawBytes(b"[$l#l\x7f\xff\xff\xff"),
    RawBytes(b"[#L\x7f" + b"\xff" * 7), RawBytes(b"[" * 3000), RawBytes(b"{i\x01a" * 3000),
    RawBytes(b"[#i\x01" * 3000 + b"Z"),
    RawBytes(b"{i\x01aZi\x01aZ}"), RawBytes(b"[$Z#l\x00\xff\xff\xff"),
    RawBytes(b"Sl\x80\x00\x00\x00"), RawBytes(b"[$[#i\x01"), RawBytes(b"[$S#i\x02i\x01ai\x01b"),
    RawBytes(b"N"), RawBytes(b"H"), RawBytes(b"C\xff"), RawBytes(b"}"), RawBytes(b"]"),
    RawBytes(b""), RawBytes(b"SU\x02\xff\xff"),
)  # fmt: skip
_ODD_BYTES = (0, 1, 0x7F, 0x80, 0xFF, *b'[]{}$#LliUISdDZTFN",:\\0e-')


def damaged(files: Files, rng: np.random.Generator) -> tuple[str, Files]:
    """Damage a folder at random; sizes and checksums fit the damage.

    Returns
    -------
    description : str
    files : dict of str to bytes
    """
    kinds: tuple[Callable[..., tuple[str, Files]], ...] = (
        _flipped, _cut, _spliced, _json_changed, _json_changed, _model_changed, _tree_changed,
        _tree_changed,
    )  # fmt: skip
    kind = kinds[rng.integers(len(kinds))]
    what, changed = kind(dict(files), rng)
    if rng.random() < 0.15:  # twice damaged
        other = kinds[rng.integers(len(kinds))]
        try:
            more, changed = other(dict(changed), rng)
            what = f"{what}; {more}"
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            pass  # the first damage leaves nothing to take apart
    try:
        return what, fitting(changed)
    except (ValueError, KeyError, TypeError, RecursionError):  # of the manifest itself
        return what, changed


def _chosen(files: Files, rng: np.random.Generator) -> str:
    return sorted(files)[rng.integers(len(files))]


def _flipped(files: Files, rng: np.random.Generator) -> tuple[str, Files]:
    name = _chosen(files, rng)
    content = bytearray(files[name])
    for place in rng.integers(len(content), size=int(rng.choice([1, 1, 2, 8]))):
        odd = _ODD_BYTES[rng.integers(len(_ODD_BYTES))]
        content[place] = (content[place] ^ (1 << rng.integers(8)), odd)[rng.integers(2)]
    return f"bytes of {name}", {**files, name: bytes(content)}


def _cut(files: Files, rng: np.random.Generator) -> tuple[str, Files]:
    name = _chosen(files, rng)
    content = files[name]
    start, end = sorted(int(place) for place in rng.integers(len(content) + 1, size=2))
    part = (content[:start], content[:start] + content[end:], content + content[start:end])
    return f"part of {name}", {**files, name: part[rng.integers(3)]}


def _spliced(files: Files, rng: np.random.Generator) -> tuple[str, Files]:
    name, source = _chosen(files, rng), files[_chosen(files, rng)]
    content = files[name]
    length = int(rng.integers(1, 200))
    start, place = int(rng.integers(len(source))), int(rng.integers(len(content)))
    insert, skip = source[start : start + length], int(rng.choice([0, length]))
    spliced = content[:place] + insert + content[place + skip :]
    return f"splice into {name}", {**files, name: spliced}


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Give every container inside, with each of its keys; of long lists a few."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        at = waiting.pop()
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))[:20]
        found += [(at, key) for key in keys]
        waiting += [at[key] for key in keys if isinstance(at[key], dict | list)]
    return found


def _json_changed(files: Files, rng: np.random.Generator) -> tuple[str, Files]:
    name = ("manifest.json", "manifest.json", "datasets.json")[rng.integers(3)]
    content = json.loads(files[name])
    for _ in range(int(rng.choice([1, 1, 1, 3]))):
        places = _places(content)
        if not places:
            break
        container, key = places[rng.integers(len(places))]
        way = rng.integers(6)
        if way == 0:
            del container[key]
        elif way == 1 and isinstance(container, dict):
            container["new"] = container[key]
        elif way == 2 and isinstance(container[key], list):
            container[key] = container[key] * int(rng.choice([2, 50]))
        elif way == 3 and isinstance(container[key], int | float):
            container[key] *= float(rng.choice([-1, 1e-3, 1e3, 1e30, 1e300]))
        else:
            container[key] = _ODD_JSON[rng.integers(len(_ODD_JSON))]
    return f"values of {name}", {**files, name: json_of(content)}


def _decoded(files: Files, rng: np.random.Generator) -> tuple[str, Any]:
    names = sorted(name for name in files if name.endswith(".ubj"))
    name = names[rng.integers(len(names))]
    return name, read_ubjson(files[name])


def _model_changed(files: Files, rng: np.random.Generator) -> tuple[str, Files]:
    name, model = _decoded(files, rng)
    # All containers alike, so that trees do not outweigh the rest
    places = [place for place in _places(model) if not (_in_tree(place) and rng.random() < 0.9)]
    container, key = places[rng.integers(len(places))]
    if rng.random() < 0.2:
        del container[key]
    else:
        container[key] = _ODD_UBJSON[rng.integers(len(_ODD_UBJSON))]
    return f"{key} of {name}", {**files, name: ubjson_of(model)}


def _in_tree(place: tuple[Any, Any]) -> bool:
    container, key = place
    return isinstance(container, dict) and key in (*_TREE_KEYS, "num_nodes", "id", "loss_changes")


def _tree_changed(files: Files, rng: np.random.Generator) -> tuple[str, Files]:
    name, model = _decoded(files, rng)
    trees = model["learner"]["gradient_booster"]["model"]["trees"]
    tree = trees[rng.integers(len(trees))]
    key = _TREE_KEYS[rng.integers(len(_TREE_KEYS))]
    array = tree[key]
    way = rng.integers(5)
    if way == 0 or not isinstance(array, np.ndarray) or not len(array):
        tree[key] = _ODD_UBJSON[rng.integers(len(_ODD_UBJSON))]
    elif way == 1:
        tree[key] = array[: rng.integers(len(array))]
    elif way == 2:
        tree[key] = rng.permutation(array)
    else:
        array = np.array(array)
        odd = _ODD_FLOATS if array.dtype.kind == "f" else _ODD_NUMBERS
        if way == 3:  # to another node, or a little elsewhere
            odd = tuple(range(-2, len(array) + 2))
        with np.errstate(all="ignore"):
            array[rng.integers(len(array))] = np.array(odd[rng.integers(len(odd))]).astype(
                array.dtype
            )
        tree[key] = array
    return f"{key} of a tree of {name}", {**files, name: ubjson_of(model)}


# What is done on purpose


def made_on_purpose(files: Files) -> Iterator[tuple[str, Files]]:
    """Folders that are as large, deep or many as they can be, and such that hit one rule each."""
    manifest = json.loads(files["manifest.json"])
    datasets = json.loads(files["datasets.json"])
    room = 8 * 2**20 - len(files["manifest.json"]) - 1000

    def with_manifest(**values: Any) -> Files:
        return {**files, "manifest.json": json_of({**manifest, **values})}

    def with_datasets(value: Any) -> Files:
        return fitting({**files, "datasets.json": json_of(value)})

    def with_model(name: str, model: Any) -> Files:
        return fitting({**files, name: model if isinstance(model, bytes) else ubjson_of(model)})

    yield "the folder itself", files
    scores = {"x": Raw("[" + "[]," * (room // 3) + "0]")}
    yield "scores of as many lists as there can be", with_manifest(scores=scores)
    yield "deep scores", with_manifest(scores={"x": Raw("[" * 48 + "]" * 48)})
    yield "too deep scores", with_manifest(scores={"x": Raw("[" * 900_000 + "]" * 900_000)})
    yield "a deep version", with_manifest(schema_version=Raw("[" * 990 + "]" * 990))
    yield "a long version", with_manifest(schema_version="2" * 1_000_000)
    yield "a version of many", with_manifest(schema_version=[2] * 1_000_000)
    yield "a version of another kind", with_manifest(schema_version={"2": 2})
    yield "many files that are none", with_manifest(files={str(n): 0 for n in range(100_000)})
    yield "many keys", with_manifest(**{str(n): 0 for n in range(100_000)})
    yield "many numbers that are none", with_manifest(low=Raw("[" + '"",' * 2_000_000 + "0]"))
    yield (
        "many files",
        with_manifest(
            files={**{f"../{number}": {"sha256": "0" * 64, "bytes": 0} for number in range(60_000)}}
        ),
    )
    residuals = manifest["residuals"]
    for name, entry in residuals.items():
        for value in (-1e6, 1e308):
            changed = {"error": [value] * len(entry["error"]), "group": entry["group"]}
            yield (
                f"errors of {value} for {name}",
                with_manifest(residuals={**residuals, name: changed}),
            )
    for value in (0.5, -1.0, 101.0, 1e308, Raw("NaN"), Raw("1e999"), "2", [2.0]):
        yield f"a widening by {value}", with_manifest(unseen={"network": value})
    yield "a widening of another key", with_manifest(unseen={"training.lr": 2.0})
    yield "no network", with_manifest(networks=[])
    yield "a network that cannot be shown", with_manifest(networks=["8C3-10\u001b[2J"])
    yield "many networks", with_manifest(networks=["10"] * 30_000)
    long = {"error": [0.25] * 500_000, "group": [1] * 500_000}
    yield "long residuals", with_manifest(residuals={**residuals, "accuracy": long})
    for value in (10**30, -(2**63), 2**63):
        other = {"error": [0.25] * 9, "group": [value] * 9}
        yield f"a group of {value}", with_manifest(residuals={**residuals, "statistics": other})
    yield "ranges that end before", with_manifest(low=manifest["high"], high=manifest["low"])
    yield (
        "ranges of all",
        with_manifest(low=[-1e308] * len(manifest["low"]), high=[1e308] * len(manifest["low"])),
    )
    for pair in ([5.0, 1.0], [-1.0, 1.0], [0.0, 1e308]):
        ranges = {
            feature: dict.fromkeys(names, pair) for feature, names in manifest["of_name"].items()
        }
        yield f"ranges {pair} of every name", with_manifest(of_name=ranges)
    many = {str(n): [0, 1] for n in range(100_000)}
    yield "ranges of many names", with_manifest(of_name={"surrogate.slope": many})
    yield "ranges of many features", with_manifest(of_name={name: {} for name in many})
    yield "many names", with_manifest(datasets=["x"] * 1_000_000)
    yield "a long name", with_manifest(datasets=["x" * 1_000_000])
    yield "a name that clears the screen", with_manifest(datasets=["\x1b[2J\x1b]0;x\x07"])
    many_names = [f"n{number}" for number in range(950)]
    categories = {**manifest["categories"], "surrogate.name": many_names}
    names = [name for name in manifest["feature_names"] if "surrogate.name=" not in name]
    yield "many categories", with_manifest(categories=categories, feature_names=names)
    profile = manifest["profile"]
    for values in (
        {"mean": [1e308] * 16},
        {"mean": [0.0] * 16},
        {"components": [[1e308] * 16] * 2},
        {"components": [[0.0] * 16] * 2},
        {"mean": [1.0]},
        {"components": [profile["mean"]]},
    ):
        yield f"a profile with {values!s:.40}", with_manifest(profile={**profile, **values})
    for ratio in (0.0, -1.0, 1e-300, 99.9, 100.0, Raw("NaN")):
        yield f"tap ratio {ratio}", with_manifest(tap_ratios={"input": ratio, "hidden": 1.0})

    entry = next(iter(datasets.values()))[0]
    for values in (
        {"height": 0}, {"height": 10**30}, {"width": -1}, {"time_steps": 10**9}, {"events": []},
        {"events": [[]] * entry["time_steps"]}, {"events": [[1e308, 1.0]] * entry["time_steps"]},
        {"events": [[0.0, 0.0]] * entry["time_steps"]}, {"tap_ratio": 0.0}, {"tap_ratio": 1e-300},
        {"tap_ratio": 99.0}, {"coding": {"sharpness": 1.0}}, {"coding": {"gain": Raw("NaN")}},
        {"coding": {"encoding": "\x1b[2J"}}, {"coding": {"gain": True}}, {"height": 4096},
    ):  # fmt: skip
        yield f"statistics with {values}", with_datasets({"nmnist-saccade": [{**entry, **values}]})
    close = [
        {**entry, "width": 16, "events": [[1e-300, 0.0]] * entry["time_steps"]},
        {**entry, "width": 17, "events": [[272.0, 272.0]] * entry["time_steps"]},
    ]
    yield "a steep trend", with_datasets({"nmnist-saccade": close})
    yield "a steep trend down", with_datasets({"nmnist-saccade": close[::-1]})
    sizes = [
        {"height": 1, "width": 1, "time_steps": 1, "events": [[0, 0]], "tap_ratio": 1,
         "coding": {"gain": number}} for number in range(20_000)
    ]  # fmt: skip
    yield "many statistics", with_datasets({"nmnist-saccade": sizes})
    yield "as many statistics as may be", with_datasets({"nmnist-saccade": sizes[:1000]})
    for many in ("[],", "[0,0,0,0,0,0,0,0],", "0,", '"",'):
        events = Raw("[" + many * (4_100_000 // len(many)) + "0]")
        yield (
            f"events of many {many}",
            with_datasets({"nmnist-saccade": [{**entry, "events": events}]}),
        )

    model = read_ubjson(files["firing.ubj"])
    tree = model["learner"]["gradient_booster"]["model"]["trees"][0]
    for count in (5_000, 5_001):
        large = copy.deepcopy(model)
        large["learner"]["gradient_booster"]["model"]["trees"] = [tree] * count
        parameters = large["learner"]["gradient_booster"]["model"]["gbtree_model_param"]
        parameters["num_trees"] = str(count)
        yield f"{count} trees", with_model("firing.ubj", large)
    for many in (b"Z", b"[]", b"{}", b"Si\x00", b"[#i\x00", b"[$U#i\x00"):
        content = b"[" + many * (16 * 2**20 // len(many) - 1) + b"]"
        yield f"a model of many {many!r}", with_model("firing.ubj", content)
    yield (
        "a model of one array",
        with_model("firing.ubj", b"[$U#l\x00\xff\xff\x00" + bytes(2**24 - 256)),
    )
    yield (
        "a model of names",
        with_model(
            "firing.ubj",
            b"{" + b"".join(b"U\x03%03xZ" % number for number in range(4096)) + b"}",
        ),
    )
    other = copy.deepcopy(model)
    other["learner"]["learner_model_param"]["num_feature"] = "10000"
    yield "a model of other rows", with_model("firing.ubj", other)
    yield "a model of another head", with_model("firing.ubj", files["forecast.ubj"])
    yield "a model of another head there", with_model("forecast.ubj", files["firing.ubj"])
    for value in (-250.0, 250.0):
        # Each head as far as it may go
        extreme = dict(files)
        for name in files:
            if name.endswith(".ubj"):
                far = read_ubjson(files[name])
                far["learner"]["learner_model_param"]["base_score"] = f"[{value}E0]"
                extreme[name] = ubjson_of(far)
        yield f"heads that say {value}", fitting(extreme)

    for name, table in hostile_tables():
        yield name, fitting({**files, "table.parquet": table})


def hostile_tables() -> Iterator[tuple[str, bytes]]:
    """Tables of runs that are none, or that unpack to more than fits into the memory."""
    yield "an empty table", b""
    yield "a table that is none", b"PAR1" + bytes(100) + b"PAR1"
    yield "a table of many rows", _parquet(pd.DataFrame({"network": ["10"] * 2_000_000}))
    part = pa.table({"layers.taps": [np.zeros(4_000_000)] * 2})
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, part.schema) as writer:
        for _ in range(8):
            writer.write_table(part)
    yield "a table that unpacks to 512 MiB", buffer.getvalue()
    everywhere = pa.DictionaryArray.from_arrays(np.zeros(50_000, dtype="i4"), ["x" * 10**6])
    buffer = io.BytesIO()
    pq.write_table(pa.table({"network": everywhere}), buffer, store_schema=False)
    yield "a table of long text", buffer.getvalue()
    yield "a table of bytes", _parquet(pd.DataFrame({"network": [b"x"]}))
    yield "a table of tables", _parquet(pd.DataFrame({"network": [{"a": 1}]}))
    yield "a table of other columns", _parquet(pd.DataFrame({"x": [1]}))
    yield "a table without rows", _parquet(pd.DataFrame({"network": []}))


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()
