"""Whether a run comes out the same again: what is compared, in which order, and where it is refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError, DataError
from pipeline.measuring import reproduce
from pipeline.measuring.reproduce import Recorded, compare
from pipeline.settings.code import CODE
from pipeline.system.environment import cpu_kind, digest, environment
from pipeline.system.project import Project

RECORD: dict[str, Any] = {
    "git_commit": "c" * 40, "git_changed": [], "manifest_digest": "d1", "code": "e1", "fingerprint": "f1",
    "environment": environment(),
}  # fmt: skip
MEASURED: dict[str, Any] = {
    "metric": "mAP", "metrics": {"AP/a": 0.4, "mAP": 0.5, "rare": 0.2},
    "measured": [{"name": "mAP", "interval_95": [0.45, 0.55]}, {"name": "AP/a", "interval_95": [0.3, 0.5]},
                 {"name": "rare", "interval_95": None}],
}  # fmt: skip


def known(record: dict[str, Any] | None = None, **metrics: float) -> Recorded:
    measured = MEASURED | {"metrics": MEASURED["metrics"] | metrics}
    return Recorded(run="a", record=RECORD | (record or {}), measured=measured)


def test_in_the_same_environment_numbers_must_be_equal() -> None:
    assert compare(known(), known()).difference is None
    found = compare(known(), known(**{"AP/a": 0.4 + 1e-12})).difference
    assert found is not None and (found.what, found.allowed) == ("AP/a", "equal")


@pytest.mark.parametrize(
    "other",
    [None, environment() | {"cpu": "another"}, environment() | {"packages": ["torch==1.0"]}],
    ids=["not recorded", "cpu", "packages"],
)
def test_elsewhere_they_must_lie_within_the_intervals(other: dict[str, Any] | None) -> None:
    first = known({"environment": other})
    assert compare(first, known(mAP=0.451, rare=0.209)).difference is None
    for name, value in (("mAP", 0.449), ("mAP", 0.56), ("AP/a", 0.51), ("rare", 0.211)):
        found = compare(first, known(**{name: value})).difference
        assert found is not None and found.what == name
    told = [row for row in compare(first, known()).rows if not row.same]
    assert told and not any(row.counts for row in told), "it is told, and decides nothing"


def test_of_what_mlflow_knows_the_digest_of_the_packages_tells_the_environment() -> None:
    now = environment()
    tags = {"environment": None, "code": None, "cpu": now["cpu"], "packages_sha256": digest(now["packages"])}
    assert compare(known(tags), known()).difference is None
    found = compare(known(tags), known(mAP=0.5001)).difference
    assert found is not None and (found.what, found.allowed) == ("mAP", "equal")
    assert compare(known(tags | {"packages_sha256": "0" * 64}), known(mAP=0.5001)).difference is None


@pytest.mark.parametrize(("key", "what"), [("manifest_digest", "data"), ("code", "code"), ("fingerprint", "settings")])
def test_the_cause_is_named_before_what_it_causes(key: str, what: str) -> None:
    later = {"fingerprint": "f2"} if key != "fingerprint" else {}
    found = compare(known(), known({key: "x2", **later}, mAP=0.1)).difference
    assert found is not None and found.what.startswith(what) and (found.second == "x2")


def test_a_metric_that_is_gone_is_a_difference() -> None:
    second = Recorded(run="a", record=RECORD, measured=MEASURED | {"metrics": {"mAP": 0.5, "rare": 0.2}})
    found = compare(known(), second).difference
    assert found is not None and (found.what, found.second) == ("AP/a", "None")


def write(project: Path, **change: Any) -> Project:
    for name, document in (("artifacts/a/run.json", RECORD | change), ("evaluations/a/measured.json", MEASURED)):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(json.dumps(document))
    return Project(project)


def test_a_run_whose_code_is_in_no_commit_cannot_be_made_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("{}")
    with pytest.raises(DataError, match="dvc repro train@a"):
        reproduce.run("a", keep=None)
    write(tmp_path, git_changed=["pipeline/x.py"])
    with pytest.raises(ConfigError, match=r"(?s)in no commit.*pipeline/x\.py"):
        reproduce.run("a", keep=None)
    write(tmp_path, git_commit="")
    with pytest.raises(ConfigError, match="no commit is known"):
        reproduce.run("a", keep=None)
    write(tmp_path)
    with pytest.raises(ConfigError, match="not empty"):
        reproduce.run("a", keep=tmp_path)
    with pytest.raises(DataError, match=r"(?s)cannot be checked out.*cccc"):
        reproduce.run("a", keep=tmp_path / "new")


def test_the_clone_is_the_code_at_the_commit_and_the_project_in_it(tmp_path: Path) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=CODE, capture_output=True, text=True, check=True).stdout
    inside = reproduce.clone(Project(CODE / "lecture"), head.strip(), tmp_path / "one/code")
    assert inside.root == tmp_path / "one/code/lecture" and (inside.root / "params.yaml").is_file()
    own = tmp_path / "own"
    own.mkdir()
    for file in ("params.yaml", "dvc.yaml"):
        (own / file).write_text("runs: {}\n")
    beside = reproduce.clone(Project(own), head.strip(), tmp_path / "two/code")
    assert beside.root == tmp_path / "two/project" and (beside.root / "params.yaml").read_text() == "runs: {}\n"
    assert (tmp_path / "two/code/pipeline/cli.py").is_file()


def test_the_kind_of_a_processor_is_its_name_and_what_decides_the_order_of_sums(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(
        "processor\t: 0\nmodel\t\t: 143\nmodel name\t: A CPU @ 2 GHz\nflags\t\t: fpu avx2 amx_bf16 sse\n\nmodel\t: 7\n"
    )
    assert cpu_kind(file) == "A CPU @ 2 GHz, model 143, avx2 amx_bf16"
    assert cpu_kind(tmp_path / "none")
