"""The Java metrics: what is reported where they cannot run, that no process stays, and a live run where Java is."""

import importlib.util
import json
import os
import re
import shutil
import sys

import pytest

from lightning_modules.metrics import captions_java
from lightning_modules.metrics.captions_java import measure_java

REFERENCES = [["A dog runs.", "The dog"], ["Two cats, on a mat"]]
HYPOTHESES = ["a dog.", "cats"]
# A stand-in for `java`: notes its process id and what it was asked, and answers as the two programs do.
FAKE_JAVA = """#!{python}
import json, os, sys
from pathlib import Path

here = Path(__file__).parent
(here / "pid").write_text(str(os.getpid()))
mode = (here / "mode").read_text()
if mode == "broken":
    sys.exit("Error: no memory for you")
if "-out" in sys.argv:
    given = json.loads(Path(sys.argv[sys.argv.index("-jar") + 2]).read_text())
    (here / "asked").write_text(json.dumps(given))
    scores = [{{"image_id": item["image_id"], "scores": {{"All": {{"f": item["image_id"] / 2}}}}}} for item in given]
    Path(sys.argv[sys.argv.index("-out") + 1]).write_text(json.dumps(scores[::-1]))
    sys.exit()
asked = []
for line in sys.stdin.buffer:
    asked.append(line.decode("utf-8"))
    (here / "asked").write_text(json.dumps(asked))
    if mode == "talks":
        print("Error occurred during initialization of VM", flush=True)
    elif mode == "dies" and len(asked) == 2:
        sys.exit("Exception in thread main")
    elif line.startswith(b"SCORE"):
        print("1.0 2.0", flush=True)
    else:
        print("0.25\\n0.75\\n0.625", flush=True)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A folder with a `java` on the PATH and a package with all programs and models."""
    java = tmp_path / "java"
    java.write_text(FAKE_JAVA.format(python=sys.executable))
    java.chmod(0o755)
    (tmp_path / "mode").write_text("works")
    package = tmp_path / "packages" / "pycocoevalcap"
    names = ("meteor/meteor-1.5.jar", "spice/spice-1.0.jar", *(f"spice/lib/{n}" for n in captions_java._SPICE_MODELS))
    for name in ("__init__.py", *names):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delitem(sys.modules, "pycocoevalcap", raising=False)
    monkeypatch.syspath_prepend(package.parent)
    return tmp_path


def reasons(references=REFERENCES, hypotheses=HYPOTHESES):
    measured = measure_java(references, hypotheses)
    assert [dict(m.values) for m in measured] == [{}, {}]
    return [m.not_computed for m in measured]


def assert_process_has_ended(fake):
    with pytest.raises(ProcessLookupError):
        os.kill(int((fake / "pid").read_text()), 0)


def test_without_java_the_reason_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = "no Java runtime (java) on the PATH"
    assert reasons() == [{"METEOR": reason}, {"SPICE": reason}]


def test_without_the_package_the_reason_is_told(fake, monkeypatch):
    monkeypatch.setattr(captions_java.importlib.util, "find_spec", lambda name: None)
    reason = "the package pycocoevalcap is not installed"
    assert reasons() == [{"METEOR": reason}, {"SPICE": reason}]


def test_without_jar_or_models_the_reason_is_told(fake):
    package = fake / "packages" / "pycocoevalcap"
    (package / "meteor/meteor-1.5.jar").unlink()
    (package / "spice/lib/stanford-corenlp-3.6.0-models.jar").unlink()
    meteor, spice = reasons()
    assert meteor == {"METEOR": "meteor-1.5.jar is not in the package pycocoevalcap"}
    assert spice["SPICE"].startswith("stanford-corenlp-3.6.0-models.jar is not in")
    assert not (fake / "pid").exists()


def test_without_images_nothing_is_started(fake):
    assert reasons([], []) == [{n: "there are no images"} for n in ("METEOR", "SPICE")]
    assert not (fake / "pid").exists()


def test_meteor_is_asked_with_tokens_and_its_process_ends(fake, monkeypatch):
    (fake / "packages/pycocoevalcap/spice/spice-1.0.jar").unlink()
    meteor, _ = measure_java([["A dög runs.", "The dog"], ["<!a|||b> two cats"]], HYPOTHESES)
    assert dict(meteor.values) == {"METEOR": 0.625}
    assert (meteor.num_items, meteor.resample, meteor.not_computed) == (2, None, {})
    assert json.loads((fake / "asked").read_text()) == [
        "SCORE ||| a dög runs ||| the dog ||| a dog\n",
        "SCORE ||| <!ab> two cats ||| cats\n",
        "EVAL ||| 1.0 2.0 ||| 1.0 2.0\n",
    ]
    assert_process_has_ended(fake)


def test_spice_is_asked_with_tokens_and_averages_images(fake):
    _, spice = measure_java(REFERENCES, HYPOTHESES)
    assert json.loads((fake / "asked").read_text()) == [
        {"image_id": 0, "test": "a dog", "refs": ["a dog runs", "the dog"]},
        {"image_id": 1, "test": "cats", "refs": ["two cats on a mat"]},
    ]
    assert dict(spice.values) == {"SPICE": 0.25}
    assert spice.resample([[1, 1], [0, 2]])["SPICE"].tolist() == [0.25, 0.5]


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("broken", "METEOR ended with status 1; .*; Error: no memory for you"),
        ("dies", "METEOR ended with status 1; unexpected answer ''; Exception in thread main"),
        ("talks", "METEOR ended with status .*; unexpected answer 'Error occurred during init.*"),
    ],
)
def test_a_failing_java_is_reported_and_leaves_no_process(fake, monkeypatch, mode, reason):
    (fake / "packages/pycocoevalcap/spice/spice-1.0.jar").unlink()
    monkeypatch.setattr(captions_java, "_GRACE_S", 0.5)
    (fake / "mode").write_text(mode)
    meteor, _ = reasons()
    assert re.fullmatch(reason, meteor["METEOR"])
    assert_process_has_ended(fake)


def test_a_failing_spice_is_reported(fake):
    (fake / "packages/pycocoevalcap/meteor/meteor-1.5.jar").unlink()
    (fake / "mode").write_text("broken")
    _, spice = reasons()
    assert spice["SPICE"].startswith("SPICE ended with status 1")
    assert spice["SPICE"].endswith("Error: no memory for you")


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="1 hypotheses for 2 images"):
        measure_java(REFERENCES, ["a"])


def test_meteor_of_a_hundred_images_equals_the_official_wrapper(shared_dir):
    if shutil.which("java") is None or importlib.util.find_spec("pycocoevalcap") is None:
        pytest.skip("METEOR needs a Java runtime and the package pycocoevalcap")
    folder = shared_dir / "golden/official/captions"
    if not folder.is_dir():
        pytest.skip(f"no golden captions: {folder}")
    truth = json.loads((folder / "captions_val2014_1000_gt.json").read_text())
    results = json.loads((folder / "captions_val2014_fakecap_results.json").read_text())
    hypotheses = {result["image_id"]: result["caption"] for result in results}
    images = [image["id"] for image in truth["images"]][:100]
    references = {image: [] for image in images}
    for annotation in truth["annotations"]:
        if annotation["image_id"] in references:
            references[annotation["image_id"]].append(annotation["caption"])
    meteor, _ = measure_java(list(references.values()), [hypotheses[image] for image in images])
    # pycocoevalcap's own class gave this on the same tokens; all 1,000 images give 0.19525467177780284.
    assert meteor.values["METEOR"] == pytest.approx(0.1879145430271632, abs=1e-12)
