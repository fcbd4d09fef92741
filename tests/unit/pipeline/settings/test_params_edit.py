"""One value of params.yaml changes, and not a byte beside it."""

from __future__ import annotations

import difflib
from typing import Any

import pytest

from contracts.errors import ConfigError
from pipeline.settings.params_edit import with_values

TEXT = """\
# head
train: &shared  # of all runs
  max_epochs: 3   # few
runs:  # all
  a:  # first
    dataset: d   # data
    train: {batch_size: 8, optimizer: {lr: 1e-3}}  # x
    task: {name: s}
    model:
      name: m  # m
      layers:
        - 1
        - 2
      # after
      act: relu
    init:
  b:
    train: *shared
"""


@pytest.mark.parametrize(
    ("path", "value", "gone", "come"),
    [
        ("a.train.optimizer.lr", 0.01, "lr: 1e-3}}  # x", "lr: 0.01}}  # x"),
        ("a.model.act", "a: b", "      act: relu", "      act: 'a: b'"),
        ("a.task.image_size", 64, "task: {name: s}", "task: {image_size: 64, name: s}"),
        ("a.train.ema_decay", None, "train: {batch_size", "train: {ema_decay: null, batch_size"),
        ("a.init.run", "b", "    init:", "    init: {run: b}"),
        ("a.loader.window", 3, None, "    loader: {window: 3}"),
        ("b.loader.window", 3, None, "    loader: {window: 3}"),
    ],
)
def test_one_line_changes(path, value, gone, come):
    changed = with_values(TEXT, {("runs", *path.split(".")): value})
    lines = [line for line in difflib.ndiff(TEXT.splitlines(), changed.splitlines()) if line[0] in "+-"]
    assert [gone in line for line in lines if line[0] == "-"] == [True] * (gone is not None), lines
    assert [come in line for line in lines if line[0] == "+"] == [True], lines


def test_a_list_of_several_lines_keeps_the_comment_after_it():
    changed = with_values(TEXT, {("runs", "a", "model", "layers"): [3, 4]})
    assert "      layers: [3, 4]\n      # after\n      act: relu\n" in changed


def test_several_values_at_once():
    values: dict[tuple[str, ...], Any] = {("runs", "a", "dataset"): "e", ("runs", "a", "train", "optimizer", "lr"): 0.5}
    changed = with_values(TEXT, values)
    assert "dataset: e   # data" in changed and "{lr: 0.5}}  # x" in changed


@pytest.mark.parametrize("keys", [("runs", "b", "train", "max_epochs"), ("runs", "a", "dataset", "name")])
def test_what_others_share_and_what_is_no_section_is_refused(keys):
    with pytest.raises(ConfigError, match="cannot be written without changing others"):
        with_values(TEXT, {keys: 4})
