"""`sightline predict --cluster` on a real Ray cluster of two nodes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline.system.project import Project
from tests.command import sightline
from tests.local_training import make_checkpoint

pytestmark = pytest.mark.filterwarnings("default")


def test_tars_become_lines_and_a_second_call_finds_them_done(
    address: str,
    tiny_project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """The checkpoint is in no place that the workers know: it travels to them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", address)
    make_checkpoint(tmp_path / "seg.ckpt", 1)
    (tmp_path / "t").mkdir()
    for tar in sorted(tiny_project.shards("voc").glob("voc-val*.tar")):
        shutil.copyfile(tar, tmp_path / "t" / tar.name)
    whole = len(list((tmp_path / "t").iterdir()))
    assert whole
    (tmp_path / "t" / "broken.tar").write_bytes(b"no tar" * 1000)
    asked = ["seg.ckpt", str(tmp_path / "t"), "--cluster", "--out", "found"]
    assert sightline("predict", asked) == 1
    out, err = capsys.readouterr()
    summary = json.loads(out[out.index("{") :])
    assert (summary["tars"], summary["tars_failed"], summary["failed"]) == (whole, 1, 0)
    assert "this tar cannot be read" in err and "broken.tar" in err
    lines = [
        json.loads(line) for path in sorted(Path("found").glob("*.jsonl")) for line in path.read_text().splitlines()
    ]
    assert len(lines) == summary["images"] == 11
    assert all(max(line["answers"][0]["size"]) == 64 for line in lines)
    (tmp_path / "t" / "broken.tar").unlink()
    assert sightline("predict", asked) == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index("{") :])["tars_done_before"] == whole
