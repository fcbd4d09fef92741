"""dvc.yaml and the digests of code that it names, against the code: what a stage imports and reads is among them."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.settings import discover
from pipeline.settings.code import COVERED, Code, Covered

# Changing these moves work and words, not results; listing them would train everything anew after each touch.
PLUMBING = (
    "contracts/searching.py",  # settings alone, which come resolved
    "pipeline/cluster/",
    "pipeline/settings/",
    "pipeline/stages/_command.py",
    "pipeline/system/",
    *(f"pipeline/{name}.py" for name in ("shards/cache", "shards/stores", "training/run_files", "training/runs")),
    *(f"pipeline/tracking/{name}.py" for name in ("connection", "delivery", "event_tail", "lineage", "mlflow_run")),
    *(f"pipeline/tracking/{name}.py" for name in ("naming", "signing")),
    *(
        f"pipeline/training/{name}.py"
        for name in (
            "events",
            "heartbeat",
            "history",
            "ledger",
            "resume",
            "starting",
            "state_copier",
            "state_file",
            "state_mirror",
            "stopping",
        )
    ),
)
# What training imports and weights do not depend on: it draws, measures, checks, describes, or writes beside the steps.
# Which epoch is kept does depend on metrics; a mended metric measures the weights that are there (docs/decisions.md).
BESIDE_TRAINING = {
    "contracts/errors.py",
    "contracts/inputs.py",
    "contracts/names.py",
    "contracts/ranges.py",
    "contracts/raw.py",
    "contracts/redact.py",
    "lightning_modules/reports/_plots.py",
    "lightning_modules/reports/_report.py",
    "pipeline/tracking/moved.py",
    "pipeline/tracking/names.py",
    "pipeline/tracking/start.py",
    "pipeline/training/beginning.py",  # of runs with `init` alone (code.starting_digest)
    "pipeline/training/callbacks.py",
    "pipeline/training/node_load.py",
    "pipeline/training/progress.py",
    "pipeline/training/reports.py",
    "pipeline/shards/manifest.py",
    "pipeline/stages/train.py",
}
# All of it measures; what a loss is made of stands in the list of the train stage.
METRICS = "lightning_modules/metrics/"
STAGES = ("fetch", "shard", "vocab", "train", "evaluate", "register")


def module_file(root: Path, name: str) -> Path | None:
    path = root / Path(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def starts(root: Path, stage: str) -> list[Path]:
    """A stage's file, and what the cluster, whose own imports are plumbing, starts for it."""
    more = [root / "pipeline/training/fit.py"] if stage == "train" else []
    return [root / f"pipeline/stages/{stage}.py", *more]


def closure(root: Path, *start: Path, beyond: bool = False) -> set[str]:
    """Project files that `start` import, directly or not, inside functions too; beyond plumbing where asked."""
    seen: set[Path] = set()
    todo = list(start)
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        if str(path.relative_to(root)).startswith(PLUMBING) and not beyond:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            todo += [found for name in names if (found := module_file(root, name)) is not None]
    return {str(path.relative_to(root)) for path in seen}


@pytest.fixture(scope="module")
def graph(root) -> dict[str, Any]:
    return yaml.safe_load((root / "dvc.yaml").read_text())["stages"]


def lists(covered: Covered, file: str) -> bool:
    """Whether a change of this file changes the digest, if it is imported, or need not."""
    if covered is COVERED["train"] and file.startswith(METRICS):
        return True
    return any(file == name or file.startswith(f"{name}/") for name in (*covered.always, *covered.imported))


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_imports_is_covered(root, stage):
    beside = BESIDE_TRAINING if stage == "train" else set()
    uncovered = {
        file
        for file in closure(root, *starts(root, stage)) - beside
        if not file.startswith(PLUMBING)
        if (root / file).read_text().strip() and not file.endswith("__init__.py")
        if not lists(COVERED[stage], file)
    }
    assert not uncovered


def test_every_listed_file_is_there(root):
    for stage, covered in COVERED.items():
        for name in (*covered.always, *covered.imported):
            assert "{" in name or (root / name).exists(), f"{stage}: {name}"


@pytest.mark.parametrize("stage", STAGES)
def test_imports_are_found_without_parsing(root, stage):
    """The digests find them by a pattern, in a tenth of the time."""
    files = [root / name for name in COVERED[stage].always if name.endswith(".py") and "{" not in name]
    files += [path for kind in ("tasks", "models") for path in (root / "lightning_modules" / kind).glob("*.py")]
    found = Code(root).imports(str(path.relative_to(root)) for path in files)
    parsed = closure(root, *files, beyond=True)
    assert {name for name in found if not name.endswith("__init__.py")} == {
        name for name in parsed if not name.endswith("__init__.py")
    }


def test_nothing_runs_before_the_whole_file_is_checked(root, graph):
    checked = graph["check"]
    assert checked["outs"] == ["data/checked.json", "data/settings", "data/code"] and checked["always_changed"]
    assert checked["params"] == [{"params.yaml": None}], "the whole file"
    assert set(graph) == {"check", *STAGES, "report"}
    assert "data/checked.json" in graph["report"]["deps"]
    for stage in STAGES:
        assert "data/checked.json" in graph[stage]["do"]["deps"], stage
        assert f"data/code/{stage}/${{key}}.json" in graph[stage]["do"]["deps"], stage
        assert graph[stage]["do"]["cmd"] == f"python -m pipeline.stages {stage} '${{key}}'", "a name is one quoted word"


def test_every_section_of_params_is_somebodys_dependency(root, graph):
    sections = set(yaml.safe_load((root / "params.yaml").read_text()))
    read = {param.split(".")[0] for stage in STAGES for param in graph[stage]["do"].get("params", [])}
    resolved = {"runs", "train", "loader"}  # read from data/settings, which `check` writes
    assert sections - read - resolved == {"cluster", "tracking"}, "where a run is trained does not make it another"
    for stage in ("train", "evaluate"):
        assert f"data/settings/${{key}}/{stage}.json" in graph[stage]["do"]["deps"]


def test_nothing_is_declared_to_be_beside_training_that_is_not_imported(root):
    imported = closure(root, *starts(root, "train"))
    for task in discover.names("task"):
        imported |= closure(root, root / f"lightning_modules/tasks/{task}.py")
    assert imported >= BESIDE_TRAINING


@pytest.mark.parametrize(("stage", "kind"), [("train", "task"), ("train", "model"), ("evaluate", "report")])
def test_the_imports_of_what_is_found_by_name_are_covered(root, stage, kind):
    """No import leads from the stage to them."""
    beside = BESIDE_TRAINING if stage == "train" else set()
    for name in discover.names(kind):
        found = closure(root, root / f"lightning_modules/{kind}s/{name}.py") - beside
        found -= {f"lightning_modules/{kind}s/{name}.py"}
        assert not [
            file
            for file in found
            if not file.startswith(PLUMBING)
            if not file.endswith("__init__.py")
            if not lists(COVERED[stage], file)
        ], name


def test_what_draws_trains_nothing(root):
    """No report is behind the digest of training, and no task could bring one in."""
    assert not [name for part in COVERED["train"] for name in part if "reports" in name or "drawing" in name]
    for stage in ("evaluate", "register"):
        assert "lightning_modules/reports/{task}.py" in COVERED[stage].always
    for task in discover.names("task"):
        found = closure(root, root / f"lightning_modules/tasks/{task}.py")
        assert not [
            file for file in found if file.startswith(("lightning_modules/reports", "lightning_modules/drawing"))
        ]


def test_a_run_depends_on_its_own_parts_and_on_what_they_import(root):
    """So one system more, or a change to one, trains no other one again."""
    runs = yaml.safe_load((root / "params.yaml").read_text())["runs"]
    seen = {name: set(Code(root).covered(run)) for name, run in runs.items()}
    rooms = ("lightning_modules/tasks/", "lightning_modules/models/")
    for name, run in runs.items():
        parts = {f"lightning_modules/{kind}s/{run[kind]['name']}.py" for kind in ("task", "model")}
        assert {file for file in seen[name] if file.startswith(rooms)} == parts, name
    assert "lightning_modules/blocks/rcnn.py" in seen["detection_faster_rcnn"] - seen["captioning_attention"]
    assert "lightning_modules/blocks/decoding.py" in seen["captioning_attention"] - seen["detection_faster_rcnn"]


def test_the_second_project_has_the_stages_of_any_other(root, graph):
    """And `page`, which reads what the other stages write."""
    stages = yaml.safe_load((root / "lecture/dvc.yaml").read_text())["stages"]
    page = stages.pop("page")
    code = ["../lightning_modules", "../pipeline/measuring"]
    assert page["outs"] == ["page.html"] and page["deps"] == [
        *code,
        "claims",
        "evaluations",
        "artifacts/detect_retinanet_a",
    ]
    assert stages == graph


def test_the_report_is_drawn_again_when_anything_that_it_reads_changes(root, graph):
    """Its code, and the outputs of the stages before it: folders that hold those of all runs."""
    report = graph["report"]
    assert report["deps"] == ["data/checked.json", "evaluations", "registry", "data/code/report.json"]
    assert report["params"] == ["runs"] and report["outs"] == ["report.html"]
    outs = {out for stage in ("evaluate", "register") for out in graph[stage]["do"]["outs"]}
    assert {"evaluations/${key}", "registry/${key}.json"} <= outs
    imports = closure(root, root / "pipeline/measuring/report.py")
    assert not [file for file in imports if file.startswith(("lightning_modules/tasks", "pipeline/loading"))]


def test_learning_curves_are_plots_over_steps_and_metrics_are_small(root, graph):
    evaluate = graph["evaluate"]["do"]
    assert evaluate["plots"] == ["plots/${key}", {"curves/${key}": {"x": "step", "y": "value"}}]
    assert evaluate["metrics"] == [{"metrics/${key}.json": {"cache": False}}]


def test_git_ignores_what_the_stages_write_and_what_dvc_draws(root):
    """So that a repository is clean after `make repro` and what the README tells: DVC would add lines of its own."""
    outs = ["artifacts", "predictions", "evaluations", "plots", "curves", "registry"]
    written = [f"{outer}{out}/x" for outer in ("", "lecture/") for out in outs]
    written += ["report.html", "lecture/report.html", "lecture/page.html", "dvc_plots/index.html"]
    written += ["lecture/dvc_plots/index.html", "mlflow.db", "mlflow.db.lock", "state/x"]
    asked = subprocess.run(["git", "check-ignore", *written], cwd=root, capture_output=True, text=True, check=False)
    assert sorted(asked.stdout.split()) == sorted(written)


def test_outputs_are_what_the_project_says(graph):
    outs = [out for stage in STAGES for out in graph[stage]["do"].get("outs", [])]
    names = [out if isinstance(out, str) else next(iter(out)) for out in outs]
    assert len(names) == len(set(names))
    assert all("state" not in name for name in names), "resumable state must lie outside every output"
