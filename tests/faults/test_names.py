"""A name of a data set or a run that is a path or shell text: nothing is run with it, nothing outside is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.errors import ConfigError
from contracts.names import NAME_RULE, is_name
from pipeline.settings.check import check
from pipeline.settings.params import load_params, read_params
from pipeline.stages.fetch import fetch
from pipeline.system.project import Project
from tests.waiting import PATIENCE_S

BIN = Path(sys.executable).parent
# MARK is replaced by the path of a file that must not appear.
PATH = "../../../precious"
EVIL = (
    "a; touch MARK ;",
    "$(touch MARK)",
    "`touch MARK`",
    "q'; touch MARK; '",
    'q"; touch MARK; "',
    "a b",
    "-rf",
    "Coco",
    "ä",
    "a" * 65,
)
EVIL_PATHS = ("", ".", "..", "/", "../x", "a/b", "a\nb", "${runs}", "*", "~", "a.b", "a@b")  # DVC itself chokes on some


def params(**changes: Any) -> dict[str, Any]:
    world = {"name": "voc_scenes", "seed": 6, "image_size": 64, "num_records": {"train": 2, "val": 1}}
    dataset = {"origin": "generated", "input": "pipeline/ingest/worlds", "world": world, "sources": {"voc": {}}}
    run = {"dataset": "voc", "task": {"name": "segmentation"}, "model": {"name": "fcn"}}
    return {
        "datasets": {"voc": dataset},
        "runs": {"seg": run},
        "train": {},
        "loader": {},
        "shards": {},
        "registry": {},
    } | changes


def renamed(names: tuple[str, ...], *parts: str) -> dict[str, Any]:
    """The document with more entries in `parts`, by these names."""
    document = json.loads(json.dumps(params()))
    for part in parts:
        (entry,) = document[part].values()
        document[part] |= dict.fromkeys(names, entry)
    return document


@pytest.fixture(scope="module")
def copy(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code and dvc.yaml in a git repository of its own; a folder that is nobody's business lies beside it."""
    folder = tmp_path_factory.mktemp("names") / "project"
    folder.mkdir()
    for name in ("contracts", "lightning_modules", "pipeline", ".dvc"):
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "cache", "tmp"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copyfile(root / name, folder / name)
    for target in (folder.parent / "precious", folder.parent.parent / "precious"):
        target.mkdir(exist_ok=True)
        (target / "file").write_text("keep")
    (folder / "params.yaml").write_text(yaml.safe_dump(params()))
    assert run(folder, "git", "init", "-q").returncode == 0
    return folder


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


def untouched(folder: Path) -> None:
    assert (folder.parent / "precious" / "file").read_text() == "keep"
    assert not (folder.parent / "mark").exists()
    assert not list(folder.glob("mark*"))
    for name in ("data", "artifacts", "state", "registry"):
        assert not [path for path in (folder / name).rglob("*") if path.is_file()], f"{name}: no stage may have begun"


def write(folder: Path, document: dict[str, Any]) -> None:
    # DVC unfolds ${...} in keys as well; MARK is one word for the shell whatever the folder is called
    text = yaml.safe_dump(document, allow_unicode=True).replace("MARK", str(folder.parent / "mark"))
    (folder / "params.yaml").write_text(text)


def test_dvc_repro_runs_nothing(copy):
    write(copy, renamed(EVIL, "datasets", "runs"))
    shell = "$(touch MARK)".replace("MARK", str(copy.parent / "mark"))
    for targets in ((), (f"fetch@{shell}",), (f"train@{shell}",)):
        result = run(copy, "dvc", "repro", *targets)
        output = result.stdout + result.stderr
        assert result.returncode == 255, output
        assert "failed to run: python -m pipeline.cli check --out data/checked.json" in output
        assert "exited with 2" in output
        for name in ("-rf", "Coco", shell):
            for part in ("datasets", "runs"):
                assert f'{part}: "{name}" is not a valid name; allowed: {NAME_RULE}' in output
        assert output.count("Running stage") == 1, output
        untouched(copy)


def test_a_path_as_a_name_deletes_nothing_outside(copy):
    """DVC deletes a stage's outputs before it runs it; it also refuses two stages with one output."""
    write(copy, renamed((PATH,), "datasets", "runs"))
    for command in (["repro", f"fetch@{PATH}"], ["repro", f"train@{PATH}"], ["checkout", "--force"]):
        run(copy, "dvc", *command)
        untouched(copy)
    result = run(copy, sys.executable, "-m", "pipeline.cli", "check")
    assert result.returncode == 2
    for part in ("datasets", "runs"):
        assert f'{part}: "{PATH}" is not a valid name; allowed: {NAME_RULE}' in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("stage", ["fetch", "train"])  # the others begin in the same `main`
def test_no_stage_takes_such_a_name_from_its_command_line(copy, stage):
    write(copy, params())
    name = PATH
    result = run(copy, sys.executable, "-m", "pipeline.stages", stage, name)
    assert result.returncode == 2, result.stderr
    what = {"fetch": "data set", "train": "run"}[stage]
    assert f"ConfigError: no such {what}: '{name}'" in result.stderr
    assert "Traceback" not in result.stderr
    untouched(copy)


def test_a_stage_reads_no_file_with_such_a_name(copy):
    write(copy, renamed((PATH,), "datasets"))
    for name in (PATH, "voc"):
        result = run(copy, sys.executable, "-m", "pipeline.stages", "fetch", name)
        assert result.returncode == 2
        assert f'"{PATH}" is not a valid name' in result.stderr
        untouched(copy)


def test_again_with_good_names_everything_runs(copy):
    write(copy, renamed(("voc-2", "a" * 64), "datasets"))
    result = run(copy, "dvc", "repro", "fetch@voc", "fetch@voc-2", f"fetch@{'a' * 64}")
    assert result.returncode == 0, result.stderr
    assert (copy / "data" / "raw" / "voc-2" / "VOCdevkit").is_dir()
    assert json.loads((copy / "data" / "checked.json").read_text()) == {"checked": True}
    (copy / "params.yaml").write_text((copy / "params.yaml").read_text() + "# said otherwise\n")
    again = run(copy, "dvc", "repro", "fetch@voc")
    assert again.stdout.count("Running stage") == 1, "check alone: a comment is no parameter"
    shutil.rmtree(copy / "data")


@pytest.mark.parametrize("name", [PATH, *EVIL, *EVIL_PATHS])
@pytest.mark.parametrize("part", ["datasets", "runs"])
def test_no_such_name_is_loaded_for_work(tmp_path, part, name):
    assert not is_name(name)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(renamed((name,), part), allow_unicode=True))
    with pytest.raises(ConfigError, match="is not a valid name; allowed: small letters a-z"):
        load_params(tmp_path)
    with pytest.raises(ConfigError, match=r"^1 mistake in params\.yaml"):
        check(read_params(tmp_path))


@pytest.mark.parametrize("name", [PATH, "$(touch MARK)", ["voc"], None, 3])
def test_what_refers_to_a_name_names_one_that_is_there(tmp_path, name):
    document = params(registry={"gates": {str(name): 0.5}})
    document["runs"]["seg"]["dataset"] = name
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError) as caught:
        check(load_params(tmp_path))
    assert "runs.seg.dataset: no such data set" in str(caught.value)
    assert f"registry.gates.{name}: no such run" in str(caught.value)


def test_names_from_one_to_64_characters_are_good():
    for name in ("a", "0", "coco", "voc_2012", "a-b", "a" * 64):
        assert is_name(name)


def test_fetch_deletes_nothing_outside_even_if_it_is_asked_to(tmp_path):
    """The second lock behind the names: called by other code than the stage's command."""
    for folder in ("a/b/project/data/raw", "precious"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "precious" / "file").write_text("keep")
    project = Project(tmp_path / "a" / "b" / "project")
    name = "../../../../../precious"
    (project.root / "params.yaml").write_text(yaml.safe_dump(params()))
    loaded = load_params(project.root)
    loaded.document["datasets"][name] = loaded.document["datasets"]["voc"]
    with pytest.raises(ConfigError):
        fetch(project, loaded, name)
    assert (tmp_path / "precious" / "file").read_text() == "keep"
