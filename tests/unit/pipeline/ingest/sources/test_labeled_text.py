"""fastText's lines of labels and a text."""

import gzip

import pytest

from contracts.errors import ConfigError, DataError
from contracts.raw import Problem, RawRecord
from pipeline.ingest.sources import labeled_text
from pipeline.ingest.sources.labeled_text import Config

TRAIN = "\ufeff__label__sky the clouds are in the\r\n\n__label__sea ships  are on\tthe __label__blue\nno label here\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "train.txt").write_bytes(TRAIN.encode() + b"__label__sky caf\xe9\n")
    with gzip.open(tmp_path / "valid.txt.gz", "wt") as file:
        file.write("__label__air birds are in the")
    return tmp_path


def test_lines_become_texts_with_their_labels(root):
    config = Config(splits={"val": "valid"})
    assert labeled_text.splits(root, config) == ("train", "val")
    assert labeled_text.classes(root, config) == ("air", "blue", "sea", "sky")
    read = list(labeled_text.read(root, "train", config))
    records = [one for one in read if isinstance(one, RawRecord)]
    assert [(r.key, r.labels, r.sentences[0].text, r.sentences[0].role) for r in records] == [
        ("train-000000001", ("sky",), "the clouds are in the", "text"),
        ("train-000000003", ("sea", "blue"), "ships are on the", "text"),
    ]
    problems = [one for one in read if isinstance(one, Problem)]
    assert [(p.reason, p.item_id) for p in problems] == [("text_without_class", "train:4"), ("not_utf8", "train:5")]
    (val,) = labeled_text.read(root, "val", config)
    assert (val.key, val.labels) == ("valid-000000001", ("air",))


def test_another_prefix_and_a_list_of_classes(root):
    (root / "train.txt").write_text("#a one #b\n")
    config = Config(prefix="#", classes=("b", "a"))
    assert labeled_text.classes(root, config) == ("b", "a")
    (record,) = labeled_text.read(root, "train", config)
    assert (record.labels, record.sentences[0].text) == (("a", "b"), "one")


def test_files_without_a_label_and_a_prefix_that_is_none_are_told(root):
    with pytest.raises(DataError, match="no line has a label"):
        labeled_text.classes(root, Config(prefix="#"))
    with pytest.raises(ConfigError, match="prefix"):
        Config(prefix="a b")
