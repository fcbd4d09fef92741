"""Lists of word pictures in every layout, and what is wrong in them."""

import json

import pytest

from contracts.errors import ConfigError, DataError
from contracts.raw import Problem, RawRecord
from pipeline.ingest.sources import word_images
from pipeline.ingest.sources.word_images import Config

BEH = "\u0628"


def read(root, split="train", **settings):
    found = list(word_images.read(root, split, Config(**settings)))
    records = {one.image_id: one.transcript.text for one in found if isinstance(one, RawRecord)}
    return records, [(one.reason, one.item_id) for one in found if isinstance(one, Problem)]


def test_lines_with_a_tab_or_a_blank(tmp_path):
    lines = "\ufeffa.png\tGrand Hotel\r\nb.png word\n\nalone.png\n../out.png x\nsub\\c.jpg  two words\na.png again\n"
    (tmp_path / "train.txt").write_bytes(lines.encode() + b"d.png caf\xe9\n")
    records, problems = read(tmp_path, images="imgs")
    assert records == {"imgs/a.png": "Grand Hotel", "imgs/b.png": "word", "imgs/sub/c.jpg": " two words"}
    assert problems == [
        ("bad_text_line", "line 4"),
        ("unsafe_path", "line 5"),
        ("duplicate_key", "imgs/a.png"),
        ("bad_text_line", "line 8"),
    ]


def test_direction_language_group_and_marks(tmp_path):
    (tmp_path / "train.txt").write_text(f"12_1.png {BEH}\u064e\u0640{BEH}\n12_2.png \u0622\n7_1.png caf\u00e9\n")
    config = {"language": "ar", "group": "_"}
    found = list(word_images.read(tmp_path, "train", Config(**config)))
    assert [(r.transcript.text, r.transcript.direction, r.group, r.fixes) for r in found] == [
        (BEH * 2, "rtl", "12", ("marks_dropped",)), ("\u0622", "rtl", "12", ()), ("caf\u00e9", "ltr", "7", ()),
    ]  # fmt: skip
    assert all(r.transcript.language == "ar" for r in found)
    kept, _ = read(tmp_path, keep_marks=True)
    assert kept["12_1.png"] == f"{BEH}\u064e\u0640{BEH}"


def test_lists_of_mmocr(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"filename": "a.jpg", "text": "A"}\nnot json\n{"filename": "b.jpg"}\n')
    records, problems = read(tmp_path, layout="jsonl", lists="{split}.jsonl")
    assert records == {"a.jpg": "A"} and problems == [("bad_text_line", "line 2"), ("bad_text_line", "line 3")]
    entries = [
        {"img_path": "a.jpg", "instances": [{"text": "A"}]},
        {"img_path": "b.jpg", "instances": [{"text": "A"}, {"text": "B"}]}, 3,
    ]  # fmt: skip
    (tmp_path / "labels.json").write_text(json.dumps({"metainfo": {}, "data_list": entries}))
    records, problems = read(tmp_path, layout="mmocr", lists="labels.json")
    assert records == {"a.jpg": "A"}
    assert problems == [("bad_text_line", "data_list[1]"), ("bad_text_line", "data_list[2]")]


def test_texts_beside_pictures_with_and_without_a_list(tmp_path):
    for name, text in (("a", "one two"), ("b", "three"), ("c", None)):
        (tmp_path / f"{name}.png").write_bytes(b"")
        if text:
            (tmp_path / f"{name}.gt.txt").write_text(f"{text}\n")
    (tmp_path / "train.txt").write_text("a.lstmf\ngone.png\n")
    (tmp_path / "val.txt").write_text("b.png\nc.png\n")
    assert read(tmp_path, layout="beside") == ({"a.png": "one two\n"}, [("bad_text_line", "line 2")])
    assert read(tmp_path, "val", layout="beside") == ({"b.png": "three\n"}, [("missing_text", "line 2")])
    config = Config(layout="beside", lists="")
    assert word_images.splits(tmp_path, config) == ("train",)
    records, problems = read(tmp_path, layout="beside", lists="")
    assert records == {"a.png": "one two\n", "b.png": "three\n"} and problems == [("missing_text", "c.png")]


def test_mjsynth_has_the_label_in_the_name(tmp_path):
    (tmp_path / "annotation_train.txt").write_text("./2425/1/115_Lube_45484.jpg 45484\n./1/2/x.jpg 3\n")
    records, problems = read(tmp_path, layout="mjsynth", lists="annotation_{split}.txt")
    assert records == {"2425/1/115_Lube_45484.jpg": "Lube"} and problems == [("bad_text_line", "line 2")]


def test_the_matlab_file_of_iiit5k(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    rows = [{"ImgName": "train/1009_2.png", "GroundTruth": "You", "smallLexi": ["YOU", "ME"]},
            {"ImgName": "train/1017_1.png", "GroundTruth": "2", "smallLexi": ["2"]}]  # fmt: skip
    scipy_io.savemat(tmp_path / "traindata.mat", {"traindata": rows})
    records, problems = read(tmp_path, layout="iiit5k", lists="{split}data.mat")
    assert records == {"train/1009_2.png": "You", "train/1017_1.png": "2"} and not problems
    (tmp_path / "traindata.mat").write_bytes(b"no")
    with pytest.raises(DataError, match="not IIIT5K's list"):
        read(tmp_path, layout="iiit5k", lists="{split}data.mat")


def test_settings_that_cannot_be_are_told():
    with pytest.raises(ConfigError, match="lists"):
        Config(lists="")
    with pytest.raises(ConfigError, match="images"):
        Config(images="{name}")
    with pytest.raises(ConfigError, match="not folders below"):
        Config(images="../x")


@pytest.mark.parametrize(
    ("folder", "settings", "number", "example"),
    [
        ("iiit5k_words/IIIT5K", {"lists": "{split}.tags", "group": "_"}, 400, ("train/1009_2.png", "You")),
        ("mmocr_toy/rec_toy_dataset", {"lists": "old_label.txt", "images": "imgs"}, 10, ("imgs/1223731.jpg", "GRAND")),
        ("mmocr_toy/rec_toy_dataset", {"layout": "jsonl", "lists": "old_label.jsonl", "images": "imgs"}, 10, None),
        ("mmocr_toy/rec_toy_dataset", {"layout": "mmocr", "lists": "labels.json", "images": "imgs"}, 10, None),
        ("arabic_jstor", {"layout": "beside"}, 395, None),
    ],
)  # fmt: skip
def test_real_word_pictures(shared_dir, folder, settings, number, example):
    records, problems = read(shared_dir / "data" / folder, **settings)
    assert len(records) == number and not problems
    assert example is None or records[example[0]] == example[1]
    missing = [name for name in records if not (shared_dir / "data" / folder / name).is_file()]
    assert not missing
