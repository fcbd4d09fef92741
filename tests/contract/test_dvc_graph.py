"""dvc.yaml against the code: what a stage imports and reads stands among its dependencies."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.ingest.new_project import _stages_text
from pipeline.settings import discover
from pipeline.settings.code import _listed

# Changing these moves work and words, not results; listing them would train everything anew after each touch.
PLUMBING = (
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
    *(
        f"lightning_modules/metrics/{name}.py"
        for name in (
            "caption_scores",
            "captions",
            "captions_java",
            "classification",
            "coco_map",
            "coco_matches",
            "coco_resample",
            "groups",
            "item_metric",
            "mean_ap",
            "measurement",
            "objects",
            "ptb_tables",
            "ptb_tokenizer",
            "question_accuracy",
            "segmentation",
            "segmentation_scores",
            "top_accuracy",
            "visual7w",
            "voc_map",
        )
    ),
    "pipeline/training/callbacks.py",
    "pipeline/training/reports.py",
    "pipeline/shards/manifest.py",
    "pipeline/stages/train.py",
}
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


def closure(root: Path, *start: Path) -> set[str]:
    """Project files that `start` import, directly or not, inside functions too."""
    seen: set[Path] = set()
    todo = list(start)
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        if str(path.relative_to(root)).startswith(PLUMBING):
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


@pytest.mark.parametrize("stage", STAGES)
def test_dependencies_cover_what_the_stage_imports(root, graph, stage):
    listed = [dep for dep in graph[stage]["do"]["deps"] if "${" not in dep]
    beside = BESIDE_TRAINING if stage == "train" else set()
    uncovered = {
        file
        for file in closure(root, *starts(root, stage)) - beside
        if not file.startswith(PLUMBING)
        if (root / file).read_text().strip() and not file.endswith("__init__.py")
        if not any(file == dep or file.startswith(f"{dep}/") for dep in listed)
    }
    assert not uncovered


def test_every_listed_file_is_there(root, graph):
    for stage in STAGES:
        for dep in graph[stage]["do"]["deps"]:
            if "${" not in dep and not dep.startswith("data/"):
                assert (root / dep).exists(), f"{stage}: {dep}"


def test_nothing_runs_before_the_whole_file_is_checked(root, graph):
    checked = graph["check"]
    assert checked["outs"] == ["data/checked.json", "data/settings"]
    assert checked["params"] == [{"params.yaml": None}], "the whole file"
    assert set(checked["deps"]) == {"contracts", "lightning_modules", "pipeline"}, "every Config lies in one of these"
    assert set(graph) == {"check", *STAGES}
    for stage in STAGES:
        assert "data/checked.json" in graph[stage]["do"]["deps"], stage
        assert graph[stage]["do"]["cmd"] == f"python -m pipeline.stages.{stage} '${{key}}'", "a name is one quoted word"


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
def test_the_imports_of_what_is_found_by_name_are_covered(root, graph, stage, kind):
    """No import leads from the stage to them."""
    beside = BESIDE_TRAINING if stage == "train" else set()
    for name in discover.names(kind):
        deps = [dep.replace("${item.task.name}", name) for dep in graph[stage]["do"]["deps"]]
        found = closure(root, root / f"lightning_modules/{kind}s/{name}.py") - beside
        found -= {f"lightning_modules/{kind}s/{name}.py"}
        assert not [
            file
            for file in found
            if not file.startswith(PLUMBING)
            if not file.endswith("__init__.py")
            if not any(file == dep or file.startswith(f"{dep}/") for dep in deps)
        ], name


def test_what_draws_trains_nothing(root, graph):
    """No report is among the dependencies of training, and no task could bring one in."""
    assert not [dep for dep in graph["train"]["do"]["deps"] if "reports" in dep or "drawing" in dep]
    for stage in ("evaluate", "register"):
        assert "lightning_modules/reports/${item.task.name}.py" in graph[stage]["do"]["deps"]
    for task in discover.names("task"):
        found = closure(root, root / f"lightning_modules/tasks/{task}.py")
        assert not [
            file for file in found if file.startswith(("lightning_modules/reports", "lightning_modules/drawing"))
        ]


def test_the_fingerprint_counts_the_code_that_the_train_stage_depends_on(root, graph):
    """One list: dvc.yaml's, resolved as DVC does."""
    params = yaml.safe_load((root / "params.yaml").read_text())
    for name, item in params["runs"].items():
        deps = graph["train"]["do"]["deps"]
        for key in ("task", "model"):
            deps = [dep.replace(f"${{item.{key}.name}}", item[key]["name"]) for dep in deps]
        ours = [dep for dep in deps if not dep.startswith("data/")]
        assert _listed(root / "dvc.yaml", item) == ours and all((root / dep).exists() for dep in ours), name


def test_the_second_project_has_the_stages_of_any_other(root):
    """lecture/dvc.yaml is what `sightline init` writes, and `page`."""
    stages = yaml.safe_load((root / "lecture/dvc.yaml").read_text())["stages"]
    assert stages.pop("page")["outs"] == ["page.html"]
    assert stages == yaml.safe_load(_stages_text())["stages"]


def test_outputs_are_what_the_project_says(graph):
    outs = [out for stage in STAGES for out in graph[stage]["do"].get("outs", [])]
    names = [out if isinstance(out, str) else next(iter(out)) for out in outs]
    assert len(names) == len(set(names))
    assert all("state" not in name for name in names), "resumable state must lie outside every output"
