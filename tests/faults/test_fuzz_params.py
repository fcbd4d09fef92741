"""Whatever params.yaml holds, it is taken or a ConfigError says why not: never another exception."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from contracts.errors import ConfigError
from pipeline.settings.check import check
from pipeline.settings.params import load_params, read_params
from pipeline.settings.parse import raise_if

pytestmark = pytest.mark.filterwarnings("default")  # importing albumentations

VALID: dict[str, Any] = yaml.safe_load("""
datasets:
  voc:
    origin: generated
    input: pipeline/ingest/worlds
    world: {name: voc_scenes, seed: 2, image_size: 128, num_records: {train: 12, val: 4}}
    sources: {voc: {classes: [cross], one_based: true}, camvid: {folder: CamVid}}
  mine: {origin: local, input: ~/data, sources: {coco: {images: "{split}", only: [train]}, vqa: {}}}
  far: {origin: download, input: x, download: {archives: [coco_val2017], mirrors: ["https://a/b"]}, sources: {coco: }}
runs:
  seg:
    dataset: voc
    task: {name: segmentation, image_size: 64, augment: {crop: 0.1, albumentations: [{name: GaussianBlur, p: 0.2}]}}
    model: {name: fcn, dropout: 0.5, backbone: small}
    train: {max_epochs: 2, optimizer: {lr: 1.0e-3}, monitor: mean_iou, monitor_mode: max}
    loader: {window: 4}
  inst:
    dataset: mine
    task: {name: instances, picture_score: 0.5}
    model: {name: mask_rcnn, anchors: [0.1, 0.2], levels: [c3, c4], mask_channels: [8]}
train: {batch_size: 8, ema_decay: 0.9, optimizer: {name: sgd, momentum: 0.5}}
loader: {num_workers: 1}
shards: {samples: 16, store: "s3://bucket/prefix"}
cluster: {num_workers: {min: 1, max: 2}, engine: local, address: "ray://x:1"}
tracking: {uri: "sqlite:///mlflow.db", flush_s: 1}
registry: {gates: {seg: 0.1}}
""")


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of every value in a document."""
    if path:
        yield path
    for key, below in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(below, (*path, key))


PLACES = sorted(places(VALID), key=str)
KEYS = sorted({str(path[-1]) for path in PLACES})
WORDS = [
    *("", "name", "../x", "$(touch x)", "1e-3", "no", "~nobody/x", "2024-01-01", "voc", "auto", "\0", "é", "a" * 300),
    *("{split!z}", "{0}", "{a.b}", "{image_id.a}", "file:///", "ray", "s3://", "[::1"),
    *("postgresql://u:p@h/d", "postgresql+a.b://x", "sqlite://", "://", "http://"),
]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.integers(),
    st.sampled_from([0.0, -1.0, 0.5, 1.0, 2.5, 1e-3, 1e308, float("nan"), float("inf"), 10**30, -(2**63), 2**64]),
    st.sampled_from(WORDS),
    st.sampled_from(KEYS),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.dates(),
)
keys = st.one_of(st.sampled_from(KEYS), st.text(max_size=5), st.integers(0, 3), st.none(), st.booleans())
values = st.recursive(
    scalars,
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(keys, below, max_size=3)),
    max_leaves=6,
)
changes = st.tuples(st.sampled_from(PLACES), st.sampled_from(["put", "drop", "add", "rename", "wrap"]), keys, values)
always = settings(derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def change(document: Any, place: tuple, how: str, key: Any, value: Any) -> None:
    """One change at `place`, if an earlier one has left it there."""
    with contextlib.suppress(KeyError, IndexError, TypeError, AttributeError):
        for part in place[:-1]:
            document = document[part]
        last = place[-1]
        if how == "put":
            document[last] = value
        elif how == "drop":
            del document[last]
        elif how == "add":
            document[last][key] = value
        elif how == "rename":
            document[key] = document.pop(last)
        else:
            document[last] = [document[last], value]


def lawful(folder: Path) -> None:
    """Checks, and loads for work: nothing but ConfigError comes out."""
    with contextlib.suppress(ConfigError):
        params = read_params(folder)
        try:
            check(params)
        finally:
            raise_if(params.mistakes, params.file)  # what `load_params` adds to reading


@settings(always, max_examples=1300)
@given(st.lists(changes, min_size=1, max_size=4))
def test_a_document_changed_anywhere(tmp_path, made):
    document = copy.deepcopy(VALID)
    for one in made:
        change(document, *one)
    text = yaml.dump(document, Dumper=yaml.CSafeDumper, allow_unicode=True)
    (tmp_path / "params.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    lawful(tmp_path)


TEXT = yaml.safe_dump({key: VALID[key] for key in ("datasets", "runs", "cluster", "registry")})
PIECES = [
    *(
        "\t",
        "&a ",
        "*a",
        "<<: *a\n",
        "- ",
        "? ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "'",
        '"',
        "#",
        "|\n",
        ">\n",
        "\r",
        "\ufeff",
        "\x85",
    ),
    *("!!binary ", "!!int ", "!!python/object:os.system ", "!!timestamp ", "!!merge ", "!", "%YAML 1.1\n"),
    *("---\n", "...\n", "null: 1\n", "1: 2\n", "voc: 3\n", "runs: 3\n"),
]
cuts = st.tuples(st.integers(0, len(TEXT)), st.integers(0, 3), st.sampled_from(PIECES) | st.text(max_size=4))


@settings(always, max_examples=600)
@given(st.lists(cuts, min_size=1, max_size=4))
def test_a_text_changed_anywhere(tmp_path, made):
    text = TEXT
    for start, gone, new in made:
        text = text[:start] + new + text[start + gone :]
    (tmp_path / "params.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    lawful(tmp_path)


@settings(always, max_examples=600)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"")
@example(b"\xff\xfea\0")
@example(b"[" * 3_000)
@example(b"a: " + b"9" * 5_000)
@example(b"a: &a [*a]\n")
@example(b"a: &a {b: *a}\nruns: *a\n")
@example(
    b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c]\n"
)
@example(b'datasets: {voc: "\\ud800"}\nruns: {}\n')
def test_any_bytes(tmp_path, data):
    (tmp_path / "params.yaml").write_bytes(data)
    lawful(tmp_path)


def test_the_document_that_is_changed_has_no_mistakes(tmp_path):
    """Otherwise the changes above would never reach the deeper checks."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(VALID))
    check(load_params(tmp_path))
