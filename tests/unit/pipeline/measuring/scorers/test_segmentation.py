"""`score segmentation` on PNG folders made from the official kit's golden case, and on broken ones."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from pipeline.measuring import score
from pipeline.measuring.scorers import Inputs
from tests.command import sightline


def write(folder: Path, maps: dict, mode: str = "P") -> Path:
    """Label PNGs by stem: with a palette of odd colours, or grey."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, labels in maps.items():
        image = Image.fromarray(np.asarray(labels, np.uint8))
        if mode == "P":
            image.putpalette([(i * 37 + c) % 256 for i in range(256) for c in range(3)])
        image.save(folder / f"{stem}.png")
    return folder


def scored(capsys, truth: Path, predictions: Path, *more: str) -> dict:
    assert sightline("score", ["segmentation", "--truth", str(truth), "--predictions", str(predictions), *more]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("mode", ["P", "L"])
def test_equals_the_official_kit(shared_dir, tmp_path, capsys, mode) -> None:
    folder = shared_dir / "golden/official/seg"
    case, expected = (json.loads((folder / name).read_text()) for name in ("seg.json", "expected.json"))
    truth = write(tmp_path / "t", {stem: image["gt"] for stem, image in case["images"].items()}, mode)
    found = write(tmp_path / "f", {stem: image["pred"] for stem, image in case["images"].items()}, mode)
    document = scored(capsys, truth, found, "--bootstrap", "100")
    assert document["mean_iou"] * 100 == pytest.approx(61.167821576774, abs=1e-11)
    assert document["pixel_accuracy"] == pytest.approx(expected["pixel_accuracy"], abs=1e-12)
    assert document["mean_class_accuracy"] == pytest.approx(expected["mean_class_accuracy"], abs=1e-12)
    percent = [100 * document["per_class"][str(label)] for label in range(5)]
    assert percent == pytest.approx(expected["iou_percent"], abs=1e-11)
    assert (document["num_items"], document["unit"]) == (6, "images")
    assert set(document["intervals"]) == {"mean_iou", "pixel_accuracy", "mean_class_accuracy", "frequency_weighted_iou"}
    low, high = document["intervals"]["mean_iou"]
    assert low < document["mean_iou"] < high


def test_equals_the_published_small_cases(shared_dir, tmp_path, capsys) -> None:
    cases = json.loads((shared_dir / "golden/segmentation_small_arrays/cases.json").read_text())
    assert len(cases) == 9
    for i, case in enumerate(cases):
        truth, found = write(tmp_path / f"t{i}", {"a": case["gt"]}), write(tmp_path / f"f{i}", {"a": case["pred"]})
        document = scored(capsys, truth, found)
        assert document["pixel_accuracy"] == pytest.approx(case["pixel_accuracy"], abs=1e-12)
        assert document["mean_class_accuracy"] == pytest.approx(case["mean_accuracy"], abs=1e-12)
        assert document["frequency_weighted_iou"] == pytest.approx(case["frequency_weighted_IU"], abs=1e-12)
        # These cases mean over the classes of the truth; VOC counts a class that is only predicted as 0.
        of_truth = [document["per_class"][str(label)] for label in np.unique(case["gt"])]
        assert np.mean(of_truth) == pytest.approx(case["mean_IU"], abs=1e-12)
        in_either = [iou for iou in document["per_class"].values() if iou is not None]
        assert document["mean_iou"] == pytest.approx(np.mean(in_either), abs=1e-12)


def test_classes_up_to_the_largest_label_are_listed(tmp_path, capsys) -> None:
    truth = write(tmp_path / "t", {"a": [[0, 255, 255]]})
    document = scored(capsys, truth, write(tmp_path / "f", {"a": [[0, 2, 3]]}), "--ignore-index", "255")
    assert document["per_class"] == {"0": 1.0, "1": None, "2": None, "3": None}
    assert document["mean_iou"] == 1.0  # what lies on ignored pixels does not count


def test_high_labels_and_grey_of_four_bits(tmp_path, capsys) -> None:
    truth = write(tmp_path / "t", {"a": [[0, 254]], "b": [[254, 254]]}, "L")
    document = scored(capsys, truth, truth)
    assert (document["mean_iou"], len(document["per_class"])) == (1.0, 255)
    few = Image.new("P", (2, 1))
    few.putdata([0, 3])
    for name, bits in (("four", 4), ("eight", 8)):
        (tmp_path / name).mkdir()
        few.save(tmp_path / name / "a.png", bits=bits)
    assert scored(capsys, tmp_path / "four", tmp_path / "eight")["pixel_accuracy"] == 1.0


def test_the_ignored_label_and_the_classes_are_the_users_to_name(tmp_path, capsys) -> None:
    """CamVid's void is 11."""
    truth = write(tmp_path / "t", {"a": [[0, 1, 11, 11]]}, "L")
    found = write(tmp_path / "f", {"a": [[0, 0, 1, 2]]}, "L")
    document = scored(capsys, truth, found, "--ignore-index", "11", "--class-names", "sky,road,car")
    assert document["per_class"] == {"sky": 0.5, "road": 0, "car": None}
    assert "11 ignored" in document["variant"]
    document = scored(capsys, truth, found, "--ignore-index", "11", "--num-classes", "5")
    assert [*document["per_class"]] == ["0", "1", "2", "3", "4"]
    assert (
        sightline("score", ["segmentation", "--truth", str(truth), "--predictions", str(found), "--num-classes", "3"])
        == 2
    )
    assert "a label is not a class id: 11" in capsys.readouterr().err
    (tmp_path / "names.txt").write_text("sky\nroad\n")
    command = ["segmentation", "--truth", str(truth), "--predictions", str(found)]
    assert sightline("score", [*command, "--ignore-index", "11", "--class-names", str(tmp_path / "names.txt")]) == 2
    assert "a label is not a class id: 2" in capsys.readouterr().err


def test_classes_without_a_pixel_and_truths_of_one_label_are_told(tmp_path, capsys) -> None:
    truth = write(tmp_path / "t", {"a": [[0, 1]]})
    command = ["segmentation", "--truth", str(truth), "--predictions", str(truth)]
    assert sightline("score", [*command, "--class-names", "a,b,c"]) == 0
    assert "1 of 3 classes have no pixel in" in capsys.readouterr().err
    write(tmp_path / "t", {"a": [[0, 0]]})
    assert sightline("score", command) == 0
    assert "shows label 0 alone" in capsys.readouterr().err


def test_masks_of_0_and_255_are_no_perfect_score(tmp_path, capsys) -> None:
    truth = write(tmp_path / "t", {"a": [[0, 255]]}, "L")
    empty = write(tmp_path / "f", {"a": [[0, 0]]}, "L")
    assert sightline("score", ["segmentation", "--truth", str(truth), "--predictions", str(empty)]) == 2
    assert "--ignore-index none" in capsys.readouterr().err
    assert scored(capsys, truth, truth, "--ignore-index", "none")["mean_iou"] == 1
    assert scored(capsys, truth, empty, "--ignore-index", "none")["mean_iou"] == 0.25


def replace_with(image: Image.Image):
    return lambda path: image.save(path)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("f/b.png", Path.unlink, ["missing image (1 of 2): ['b']", "f\n"]),
        ("t/b.png", Path.unlink, ["unknown image (1 of 2): ['b']", "the 1 that"]),
        ("f/b.png", replace_with(Image.new("L", (3, 2))), ["another size", "3 x 2", "f/b.png", "2 x 2, as", "t/b.png"]),
        ("f/b.png", replace_with(Image.new("RGB", (2, 2))), ["not a label map", "mode RGB", "f/b.png", "colours"]),
        ("t/b.png", replace_with(Image.new("RGBA", (2, 2))), ["not a label map", "mode RGBA", "t/b.png"]),
        ("f/b.png", lambda path: path.write_bytes(b"no image"), ["not a label map", "f/b.png", "cannot be decoded"]),
        ("f/b.png", lambda path: path.write_bytes(path.read_bytes()[:60]), ["not a label map", "f/b.png"]),
        ("f/b.png", replace_with(Image.new("L", (2, 2), 255)), ["a label is not a class id: 255", "f/b.png", "0..254"]),
        ("t/b.png", replace_with(Image.new("I;16", (2, 2), 300)), ["a label is not a class id: 300", "t/b.png"]),
        ("f/b.png", replace_with(Image.new("I;16", (2, 2), 300)), ["a label is not a class id: 300", "f/b.png"]),
    ],
)
def test_bad_files(tmp_path, capsys, file, change, said) -> None:
    for folder in "tf":
        write(tmp_path / folder, {"a": [[0, 1], [1, 255 if folder == "t" else 1]], "b": [[0, 0], [1, 1]]})
    change(tmp_path / file)
    assert (
        sightline("score", ["segmentation", "--truth", str(tmp_path / "t"), "--predictions", str(tmp_path / "f")]) == 2
    )
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("DataError: ")
    assert all(text in err for text in said), err


labels = arrays.arrays(np.uint8, (2, 3), elements=st.sampled_from([0, 1, 2, 7, 254]))
numbers = itertools.count()


@settings(max_examples=25)
@given(st.lists(st.tuples(labels, labels), min_size=1, max_size=4), st.integers(0, 3))
def test_splitting_images_changes_nothing_but_their_number(tmp_path_factory, pairs, ignored) -> None:
    """One confusion matrix over the split: images laid side by side give the same numbers."""
    truths = [pair[0].copy() for pair in pairs]
    for truth in truths:
        truth.reshape(-1)[:ignored] = 255
    found = [pair[1] for pair in pairs]
    folder = tmp_path_factory.getbasetemp() / f"split{next(numbers)}"

    def measure(name: str, first: list, second: list) -> dict:
        paths = [write(folder / name / side, dict(enumerate(maps))) for side, maps in (("t", first), ("f", second))]
        return score.score("segmentation", Inputs(truth=paths[0], predictions=paths[1], ignore_index=255))

    apart = measure("apart", truths, found)
    together = measure("together", [np.concatenate(truths, axis=1)], [np.concatenate(found, axis=1)])
    shutil.rmtree(folder)
    assert (apart.pop("num_items"), together.pop("num_items")) == (len(pairs), 1)
    assert apart == together
