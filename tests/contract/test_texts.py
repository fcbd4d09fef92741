"""Tasks and the kinds of text that the vocab stage counts know each other by name only; here they are compared."""

from __future__ import annotations

import json

import pytest

from contracts.text import TOKENIZERS
from lightning_modules.texts._base import BaseText
from pipeline.settings import discover
from pipeline.settings.params import Params, load_params
from pipeline.system.project import Project
from pipeline.training.runs import load_run
from tests.shipped import SHIPPED


@pytest.mark.parametrize("name", discover.names("text"))
def test_a_kind_of_text_keeps_its_contract(name: str) -> None:
    text = discover.load("text", name, where="test").Text()
    assert isinstance(text, BaseText)
    assert text.tokenizer is None or text.tokenizer in TOKENIZERS


@pytest.mark.parametrize("name", discover.names("task"))
def test_a_task_asks_for_texts_that_are_counted_and_cut_as_it_reads_them(name: str) -> None:
    for text, tokenizer in discover.load("task", name, where="test").Task.texts.items():
        assert text in discover.names("text"), f"add lightning_modules/texts/{text}.py"
        assert discover.load("text", text, where="test").Text.tokenizer == tokenizer


def test_a_run_knows_the_texts_of_its_task_and_no_others(tiny_project: Project) -> None:
    """So a data set that gets questions, too, trains its captioner no second time."""
    params = Params({**load_params(tiny_project.root).document, "runs": SHIPPED})
    for name in SHIPPED:
        data = load_run(tiny_project, params, name)
        task = discover.load("task", data.run.task_name, where="test").Task
        assert set(data.spec.vocabulary) == set(task.texts), name
        written = json.loads(tiny_project.vocabulary(data.run.dataset).read_text())
        assert all(written[text] == counted for text, counted in data.spec.vocabulary.items())
        assert all(written.values()), "of what a data set has not got, nothing is written"
    assert json.loads(tiny_project.vocabulary("voc").read_text()) == {}
