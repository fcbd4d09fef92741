"""Which commit a registered model is of: that of the code which trained it, as far as anybody can know."""

from __future__ import annotations

import pytest

from contracts.errors import ConfigError
from pipeline.stages import register
from pipeline.system.project import Project
from pipeline.tracking.lineage import Lineage


@pytest.mark.parametrize(
    ("then", "now", "same_code", "expected"),
    [
        (Lineage("a", ()), Lineage("b"), True, Lineage("a")),
        (Lineage("a", ("x.py",)), Lineage("b"), True, Lineage("b")),  # committed since
        (Lineage("a", ("x.py",)), Lineage("b"), False, Lineage("a", ("x.py",))),
        (Lineage("a", ("x.py",)), Lineage("b", ("x.py",)), True, Lineage("a", ("x.py",))),
        (Lineage("", ()), Lineage("b"), True, Lineage("b")),  # trained without git; told since
        (Lineage("", ()), Lineage("b"), False, Lineage("")),
        (Lineage("", ()), Lineage(""), True, Lineage("")),
        (Lineage("a", ("x.py",)), Lineage(""), True, Lineage("a", ("x.py",))),
    ],
)
def test_the_commit_is_of_the_code_that_trained(tmp_path, monkeypatch, then, now, same_code, expected):
    monkeypatch.setattr(register, "lineage", lambda root: now)
    monkeypatch.setattr("pipeline.training.runs.code_of_run", lambda *_: "code" if same_code else "other code")
    record = {"git_commit": then.commit, "git_changed": list(then.changed), "code": "code"}
    assert register.code_of(Project(tmp_path), None, record) == expected


def test_a_slice_that_no_metric_has_would_guard_nothing():
    score = {"metrics": {"AP/circle": 0.5, "mAP": 0.5}}
    register.check_slices({"AP/*": 0.1, "mAP": 0.0}, score, "registry.slices.a")
    with pytest.raises(ConfigError, match=r"(?s)no metric is called so.*'ap/\*'.*registry.slices.a.*AP/circle, mAP"):
        register.check_slices({"ap/*": 0.1}, score, "registry.slices.a")
