"""What stages spend, and the machine's energy counters."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pipeline.system.project import Project, write_json
from pipeline.system.spending import FILE, Energy, costs, show, stage_counted


def test_energy_is_what_the_counters_went_on_by_also_over_their_end(tmp_path: Path) -> None:
    for name, size in (("intel-rapl:0", 1_000_000_000), ("intel-rapl:1", 50_000_000), ("intel-rapl:0:0", 10)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "max_energy_range_uj").write_text(str(size))
        (tmp_path / name / "energy_uj").write_text("40000000\n")
    energy = Energy(tmp_path)
    (tmp_path / "intel-rapl:0/energy_uj").write_text("43000000\n")
    (tmp_path / "intel-rapl:1/energy_uj").write_text("5000000\n")
    (tmp_path / "intel-rapl:0:0/energy_uj").write_text("90000000\n")
    assert energy.used_j() == 3 + 15, "a part of a processor is in its whole"
    assert Energy(tmp_path / "none").used_j() is None


def test_each_stage_leaves_a_line_and_the_last_one_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    for name in ("voc", "voc"):
        with stage_counted(project, "shard", name):
            until = time.process_time() + 0.05
            while time.process_time() < until:
                pass
    with pytest.raises(ValueError, match="x"), stage_counted(project, "shard", "coco"):
        raise ValueError("x")
    lines = [json.loads(line) for line in (tmp_path / "state" / FILE).read_text().splitlines()]
    assert [line["name"] for line in lines] == ["voc", "voc"], "what fails leaves none"
    with open(tmp_path / "state" / FILE, "a") as file:
        file.write('{"stage": "eval')
    write_json(tmp_path / "artifacts/seg/run.json", {"cost": {"time_s": 120.0, "cpu_s": 3600.0, "gpu_s": None}})
    shard, train = costs(project)
    assert (shard["stage"], shard["name"]) == ("shard", "voc") and 0.05 <= shard["cpu_s"] <= shard["time_s"] + 0.05
    assert train["cpu_s"] == 3600 and shard["memory_gib"] > 0
    assert show(project) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "train" in shown[2] and "2.0 min" in shown[2] and "60.0 min" in shown[2] and shown[3].split()[0] == "all"


def test_a_project_that_did_nothing_has_no_costs(tmp_path: Path) -> None:
    assert costs(Project(tmp_path)) == []
