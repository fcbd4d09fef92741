"""The real graph: this project's dvc.yaml and code in a fresh git repository, with a tiny world."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.system import warm
from tests.dvc_project import make, run, stages_run
from tests.local_training import drawn_voc


def fcn(**own: Any) -> dict[str, Any]:
    model = {"name": "fcn", "variant": "8s"}
    return {"dataset": "voc", "task": {"name": "segmentation", "image_size": 64}, "model": model, **own}


RUNS = {  # in the order of the alphabet, which is not that of the work
    "one": fcn(init={"from": "other", "parts": ["backbone"]}, train={"max_epochs": 8}),
    "other": fcn(),
}
PARAMS: dict[str, Any] = {
    "datasets": drawn_voc(train=48, val=12),
    "runs": RUNS,
    # Enough to be surely better than background everywhere, on twelve pictures: else there is no champion.
    "train": {"max_epochs": 16, "batch_size": 8, "eval_batch_size": 8, "num_pictures": 2, "optimizer": {"lr": 4.0e-3}},
    "loader": {},
    "shards": {"samples": 16},
    "cluster": {"engine": "local"},
    "tracking": {"system_metrics": False},
    "registry": {"gates": {"one": 0.0}},
}
SAID = "said.txt"  # beside the project: what its first `sightline repro` printed


def write_params(folder: Path, **changes: Any) -> None:
    document = json.loads(json.dumps(PARAMS))
    for path, value in changes.items():
        *parents, last = path.split("__")
        target = document
        for key in parents:
            target = target.setdefault(key, {})
        target[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(document))


def ran(output: str) -> set[str]:
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def would_run(folder: Path, *targets: str) -> set[str]:
    """Stages whose own inputs changed: a dry run cannot know what their outputs will be."""
    return ran(run(folder, "dvc", "repro", "--dry", *targets)) - {"check"}  # which always runs


def restore(folder: Path) -> None:
    run(folder, "git", "checkout", "-q", ".")
    run(folder, "dvc", "checkout", "--force")


@pytest.fixture(scope="module")
def project(root: Path, tmp_path_factory: pytest.TempPathFactory, warm_socket: str) -> Iterator[Path]:
    """Reproduced once, from nothing. Its experiments find the libraries loaded, as stages of `sightline repro` do."""
    folder = make(root, tmp_path_factory.mktemp("dvc") / "project", PARAMS)
    (folder.parent / SAID).write_text(run(folder, sys.executable, "-m", "pipeline.cli", "repro"))
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "reproduced")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(warm.VARIABLE, warm_socket)
        yield folder


@pytest.fixture(autouse=True)
def restored(project):
    """Every test leaves the parameters as it found them."""
    yield
    write_params(project)


def test_everything_is_there_and_both_models_are_champions(project):
    for name in RUNS:
        metrics = json.loads((project / f"evaluations/{name}/measured.json").read_text())
        assert metrics["num_samples"] == 12
        assert metrics["value"] == metrics["metrics"]["mean_iou"]
        assert "mean_iou" in metrics["constant"]
        assert json.loads((project / f"registry/{name}.json").read_text())["decision"] == "champion"
        assert (project / f"artifacts/{name}/best.ckpt").is_file()
        cost = json.loads((project / f"artifacts/{name}/run.json").read_text())["cost"]
        assert cost["time_s"] > 0 and cost["cpu_s"] > 0 and cost["samples_per_s"] > 0 and cost["num_workers"] == 1
        assert len((project / f"predictions/{name}.jsonl").read_text().splitlines()) == 12
    page = (project / "report.html").read_text()
    assert all(f'"name":"{name}"' in page for name in RUNS), "the report is the last stage"
    assert not list((project / "state").glob("o*-*")), "a finished run leaves no state behind"


def test_what_a_run_starts_from_is_trained_first_and_once(project):
    said = (project.parent / SAID).read_text()
    assert "one starts from other, which is trained first" in said
    assert said.count("train other: best at epoch") == said.count("train one: best at epoch") == 1
    assert said.index("train other: best at epoch") < said.index("train one: best at epoch")


def test_again_nothing_runs(project):
    assert stages_run(project) == ["check"]


def test_an_experiment_with_one_runs_params_reruns_its_branch_only_and_is_compared(project, root):
    """And `sightline report` shows it beside the runs of the workspace, of DVC's cache alone."""
    write_params(project, runs__one__train={"max_epochs": 2})
    told = run(project, "dvc", "exp", "run", "-n", "short")
    assert ran(told) == {"check", "train@one", "evaluate@one", "register@one", "report"}
    restore(project)
    said = run(project, sys.executable, "-m", "pipeline.cli", "report", "--experiments", "--out", "all.html")
    assert "report: 3 runs: all.html" in said
    text = (project / "all.html").read_text()
    assert '"name":"one@short"' in text and '"name":"one"' in text and '"name":"other@short"' not in text
    (project / "all.html").unlink()


def test_who_starts_from_a_changed_run_is_trained_again(project):
    def fingerprints() -> dict[str, str]:
        return {run: json.loads((project / f"artifacts/{run}/run.json").read_text())["fingerprint"] for run in RUNS}

    before, short = fingerprints(), {"max_epochs": 1}
    write_params(project, runs__other__train=short, runs__one__train=short)
    said = run(project, "dvc", "repro", "train@one")
    assert said.count("train other: best at epoch") == said.count("train one: best at epoch") == 1
    assert all(fingerprint != before[name] for name, fingerprint in fingerprints().items())
    restore(project)


def test_where_work_runs_changes_nothing(project):
    write_params(project, cluster={"engine": "ray", "num_workers": 2})
    assert not would_run(project)


def test_changed_data_rerun_all_that_depends_on_it(project):
    write_params(project, datasets__voc__world__seed=7)
    assert stages_run(project, "vocab@voc") == ["check", "fetch@voc", "shard@voc", "vocab@voc"]
    # evaluation and registration read the shards too
    assert would_run(project) == {f"{stage}@{n}" for n in RUNS for stage in ("train", "evaluate", "register")}
    restore(project)


def test_metrics_and_plots_show(project):
    shown = json.loads(run(project, "dvc", "metrics", "show", "--json").partition("{")[2].join(["{", ""]))
    assert {f"metrics/{name}.json" for name in RUNS} <= set(shown[""]["data"])
    table = run(project, "dvc", "metrics", "show").splitlines()
    assert len(table) == 3 and max(map(len, table)) <= 80, "it fits a terminal"
    for command in (("show",), ("diff", "HEAD")):
        run(project, "dvc", "plots", *command)
        page = (project / "dvc_plots/index.html").read_text()
        for curve in ("train_loss", "val_loss", "val_mean_iou"):
            assert f"curves/one/{curve}.csv" in page
        assert "plots_one_errors.png" in page and '"field": "step"' in page and '"field": "value"' in page
    assert run(project, "git", "status", "--short") == "", "what DVC drew is not git's"


def test_an_experiment_behind_a_gate_is_refused_and_shown(project):
    run(project, "dvc", "exp", "run", "-n", "gated", "-S", "registry.gates.one=0.999", "register@one")
    decision = json.loads((project / "registry/one.json").read_text())
    assert decision["decision"] == "refused"
    assert "does not reach the gate 0.999" in decision["reason"]
    assert "gated" in run(project, "dvc", "exp", "show", "--csv")
    restore(project)
