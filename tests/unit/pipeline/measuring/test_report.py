"""The page of runs: which stand together, what the page holds of each, and where runs come from."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from contracts.errors import ConfigError, DataError
from pipeline.cli import app
from pipeline.measuring import report
from pipeline.measuring.report import CONSTANT, gather, write_report
from pipeline.measuring.sources import experiment_names, find
from pipeline.system.heal import Cache
from pipeline.system.project import Project
from tests.evaluated_runs import accuracy, write_params, write_run

HARD = np.random.default_rng(0).random(200)


def right(share: float, seed: int = 0) -> np.ndarray:
    return (0.6 * HARD + 0.4 * np.random.default_rng(seed).random(200) < share).astype(float)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = tmp_path / "pets"
    root.mkdir()
    write_run(root, "small", right(0.5), decision="refused")
    write_run(root, "large", right(0.7), decision="champion", pictures={"a": np.zeros((8, 8, 3), np.uint8)})
    write_params(root, ["small", "large", "untrained"])
    return Project(root)


def shown(page: Path) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    groups: list[dict[str, Any]] = json.loads(found[1])["groups"]
    return groups


def test_all_evaluated_runs_the_best_first_and_the_constant_predictor_last(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write_report(project, (), tmp_path / "r.html") == ["small", "large"]
    assert "not evaluated, so not shown: untrained" in capsys.readouterr().err
    (group,) = shown(tmp_path / "r.html")
    assert [run["name"] for run in group["runs"]] == ["large", "small", CONSTANT]
    large, small, constant = group["runs"]
    measured = json.loads(project.measured("large").read_text())["measured"][0]
    assert large["values"]["top1"] == [measured["value"], *measured["interval_95"]]
    value, low, high = constant["values"]["top1"]
    assert low < value == 0.25 < high
    assert (large["registered"]["decision"], small["registered"]["decision"]) == ("champion", "refused")
    with np.load(project.evaluation("small") / "resamples.npz") as arrays:
        kept = arrays["run/top1"]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(small["drawn"]["top1"]), "<f4"), kept)
    assert large["pictures"]["a"].startswith("data:image/webp;base64,") and not small["pictures"]


def test_the_page_asks_no_server_and_equal_runs_are_equal_bytes(project: Project, tmp_path: Path) -> None:
    write_report(project, (), tmp_path / "a.html")
    write_report(project, (), tmp_path / "b.html")
    text = (tmp_path / "a.html").read_text()
    assert text == (tmp_path / "b.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}, "a name, not a place"


def test_texts_of_runs_are_no_html(project: Project, tmp_path: Path) -> None:
    write_run(project.root, "bad", right(0.5), settings={"x": "</script><script>alert(1)</script>"})
    write_params(project.root, ["bad"])
    write_report(project, (), tmp_path / "r.html")
    assert "<script>alert" not in (tmp_path / "r.html").read_text()
    assert shown(tmp_path / "r.html")[0]["runs"][0]["settings"]["x"].startswith("</script>")


def test_runs_that_were_asked_different_things_stand_apart(project: Project) -> None:
    write_run(project.root, "other", right(0.6), split_digest="f" * 64)
    write_params(project.root, ["small", "other", "large"])
    groups = gather(find(project, ()))
    assert [[run["name"] for run in group["runs"]] for group in groups] == [
        ["large", "small", CONSTANT], ["other", CONSTANT],
    ]  # fmt: skip


def test_tables_have_numbers_and_long_lines_are_thinned(project: Project) -> None:
    line = "".join(f"cat,{i / 1000},{1 - i / 1000}\n" for i in range(1001))
    tables: dict[str, Any] = {
        "errors": (
            {"kind": "bar", "title": "e", "x": "error", "y": "gain", "series": None},
            "error,gain\n1,0.25\nb,\n",
        ),
        "pr": ({"kind": "curve", "title": "p", "x": "r", "y": "p", "series": "c"}, f"c,r,p\n{line}dog,0.5,0.5\n"),
    }
    write_run(project.root, "drawn", right(0.5), tables=tables)
    write_params(project.root, ["drawn"])
    (group,) = gather(find(project, ()))
    errors, pr = group["runs"][0]["tables"]
    assert errors["rows"] == [["1", 0.25], ["b", None]], "a name is a text, and what is not finite is absent"
    assert pr["rows"][0] == ["cat", 0.0, 1.0] and ["cat", 1.0, 0.0] in pr["rows"] and ["dog", 0.5, 0.5] in pr["rows"]
    assert len(pr["rows"]) <= report.MAX_SERIES_POINTS + 2


def test_pictures_and_resamples_have_a_limit(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run keeps its first picture, and the interval of the task's metric."""
    pictures = {key: np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8) for key in "ab"}
    for name in ("p", "q"):
        write_run(project.root, name, right(0.5), pictures=pictures, more=[accuracy(right(0.4), "top5")])
    write_params(project.root, ["p", "q"])
    (group,) = gather(find(project, ()))
    assert [list(run["pictures"]) for run in group["runs"][:2]] == [["a", "b"]] * 2 and group["all_drawn"]
    monkeypatch.setattr(report, "MAX_PICTURE_BYTES", 10)
    monkeypatch.setattr(report, "MAX_DRAWN", 3)
    (group,) = gather(find(project, ()))
    assert [list(run["pictures"]) for run in group["runs"][:2]] == [["a"]] * 2
    assert [list(run["drawn"]) for run in group["runs"][:2]] == [["top1"]] * 2 and not group["all_drawn"]


def test_what_is_no_run_is_told(project: Project, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such run: 'smal'(?s:.*)did you mean 'small'"):
        find(project, ["smal"])
    with pytest.raises(DataError, match=r"not evaluated: 'untrained'(?s:.*)dvc repro evaluate@untrained"):
        find(project, ["untrained"])
    write_params(tmp_path, ["untrained"])
    with pytest.raises(DataError, match="no run was evaluated"):
        find(Project(tmp_path), ())
    (project.evaluation("small") / "resamples.npz").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"resamples are damaged(?s:.*)--force evaluate@small"):
        gather(find(project, ()))
    project.measured("small").write_text("{")
    with pytest.raises(DataError, match=r"damaged(?s:.*)--force evaluate@small"):
        gather(find(project, ()))


def test_a_project_that_only_prepares_data_has_a_page_without_runs(tmp_path: Path) -> None:
    """Its graph has the stage, too."""
    write_params(tmp_path, [])
    assert write_report(Project(tmp_path), (), tmp_path / "r.html") == []
    assert shown(tmp_path / "r.html") == []


def test_runs_of_another_project_stand_beside_this_ones(project: Project, tmp_path: Path) -> None:
    other = tmp_path / "others"
    other.mkdir()
    write_run(other, "huge", right(0.9))
    write_params(other, ["huge"])
    assert [source.label for source in find(project, ["small", str(other)])] == ["small", f"{other}/huge"]
    (group,) = gather(find(project, ["small", str(other)]))
    assert [run["name"] for run in group["runs"]] == [f"{other}/huge", "small", CONSTANT]


def test_a_hundred_runs_take_less_than_three_seconds(project: Project, tmp_path: Path) -> None:
    """Of processor time, since tests run side by side."""
    names = [f"run{i}" for i in range(100)]
    curve = {name: [(step, 0.5) for step in range(200)] for name in ("val/top1", "val/loss", "train/loss")}
    picture = {str(i): np.random.default_rng(i).integers(0, 255, (120, 160, 3), np.uint8) for i in range(6)}
    write_run(project.root, "run0", right(0.5), curves=curve, pictures=picture, more=[accuracy(right(0.4), "top5")])
    for name in names[1:]:
        project.evaluation(name).symlink_to(project.evaluation("run0"))
    write_params(project.root, names)
    start = time.process_time()
    assert len(write_report(project, (), tmp_path / "r.html")) == 100
    assert time.process_time() - start < 3


@pytest.fixture
def committed(project: Project) -> Callable[[str], None]:
    """Make the project a git repository with a DVC cache; the function commits what is evaluated as a revision."""
    root = project.root

    def git(*command: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", "-C", str(root), *who, *command], check=True, capture_output=True)

    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (root / ".gitignore").write_text("/evaluations\n/registry\n")
    git("init", "-q")
    cache = root / ".dvc/cache/files/md5"

    def put(data: bytes, ending: str = "") -> str:
        md5 = hashlib.md5(data).hexdigest()
        (cache / md5[:2]).mkdir(parents=True, exist_ok=True)
        (cache / md5[:2] / f"{md5[2:]}{ending}").write_bytes(data)
        return md5 + ending

    def commit(ref: str) -> None:
        stages: dict[str, Any] = {}
        for folder in sorted((root / "evaluations").iterdir()):
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            tree = [{"md5": put(path.read_bytes()), "relpath": path.relative_to(folder).as_posix()} for path in files]
            out = {"path": f"evaluations/{folder.name}", "md5": put(json.dumps(tree).encode(), ".dir")}
            stages[f"evaluate@{folder.name}"] = {"cmd": "x", "outs": [out]}
        (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
        git("add", "-A")
        git("commit", "-qm", ref)
        git("update-ref", ref, "HEAD")

    return commit


def test_runs_of_revisions_and_experiments_are_read_from_dvcs_cache(
    project: Project, committed: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    committed("refs/tags/first")
    cache = Cache.of(project.root)
    monkeypatch.setattr(Cache, "of", lambda root: cache)  # DVC takes a second to say where it is
    shutil.rmtree(project.evaluation("small"))
    write_run(project.root, "small", right(0.9, seed=5))
    committed(f"refs/exps/aa/{'b' * 38}/tall-tree")
    shutil.rmtree(project.evaluation("small"))
    write_run(project.root, "small", right(0.3, seed=6))
    committed("refs/heads/now")
    assert experiment_names(project.root) == ["tall-tree"]
    labels = [source.label for source in find(project, ["small", "small@first", "@tall-tree"])]
    assert labels == ["small", "small@first", "large@tall-tree", "small@tall-tree"]
    (group,) = gather(find(project, ["small", "small@first", "small@tall-tree"]))
    assert [run["name"] for run in group["runs"]] == ["small@tall-tree", "small@first", "small", CONSTANT]
    assert [source.label for source in find(project, (), experiments=True)] == ["small", "large", "small@tall-tree"]
    for unknown, said in (("small@nowhere", "no such revision"), ("none@first", "not evaluated: 'none'")):
        with pytest.raises((ConfigError, DataError), match=said):
            find(project, [unknown])


def test_the_command_says_what_it_wrote(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.root)
    with pytest.raises(SystemExit) as ended:
        app(["report", "large"], prog_name="sightline")
    assert ended.value.code == 0
    assert "report: 1 runs: report.html" in capsys.readouterr().out
    assert [run["name"] for run in shown(project.root / "report.html")[0]["runs"]] == ["large", CONSTANT]
