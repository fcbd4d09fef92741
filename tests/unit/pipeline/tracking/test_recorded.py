"""What an MLflow run is known by, for `sightline reproduce`: in a real store."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import ConfigError, DataError
from pipeline.settings.sections import TrackingConfig
from pipeline.system.project import Project
from pipeline.tracking import connection
from pipeline.tracking import mlflow_run as tracking
from pipeline.tracking.recorded import recorded_in_mlflow

QUIET = TrackingConfig(system_metrics=False, flush_s=0.05)


def test_a_run_is_known_by_its_tags_and_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tags = {
        "git_commit": "c" * 40,
        "git_changed": "a.py, b.py",
        "fingerprint": "f",
        "cpu": "a cpu",
        "packages_sha256": "p",
    }
    with tracking.open_run(
        QUIET, root=tmp_path, run_name="seg", experiment="segmentation", params={"a": 1}, tags=tags,
        dataset=("toy", "d1", "/data"), run_id_file=tmp_path / "id",
    ):  # fmt: skip
        pass
    run_id, project = (tmp_path / "id").read_text(), Project(tmp_path)
    with pytest.raises(DataError, match="was not measured"):
        recorded_in_mlflow(project, run_id)
    connection.connect(QUIET, tmp_path).log_dict(run_id, {"run": "seg", "manifest_digest": "d1"}, "measured.json")
    record, measured = recorded_in_mlflow(project, run_id)
    assert measured == {"run": "seg", "manifest_digest": "d1"}
    assert record.pop("git_changed") == ["a.py", "b.py"] and record.pop("manifest_digest") == "d1"
    assert record == {name: value for name, value in tags.items() if name != "git_changed"}
    with pytest.raises(ConfigError, match="no such run"):
        recorded_in_mlflow(project, "0" * 32)
