"""A model's folder under its signature: each way to change it is refused, and the key is guarded."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from contracts.errors import ConfigError, DataError
from pipeline.tracking import signing
from pipeline.tracking.signing import Untrusted, sign, verify


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIGHTLINE_SIGNING_KEY", str(tmp_path / "keys" / "signing.key"))
    folder = tmp_path / "model"
    for name, text in {"MLmodel": "m", "code/pipeline/predicting/predict.py": "c", "artifacts/best.ckpt": "w"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_what_was_signed_passes(model: Path) -> None:
    signature = sign(model)
    (model / "registered_model_meta").write_text("what MLflow adds when it downloads")
    assert verify(model) == signature
    assert signing.key_file().stat().st_mode & 0o777 == 0o600
    assert signing.key_file().parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in signing.key_file().parent.iterdir()] == ["signing.key"]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("code/pipeline/predicting/predict.py", b"d", "not the one signed"),
        ("artifacts/best.ckpt", b"x", "not the one signed"),
        ("MLmodel", b"other", "not the one signed"),
        ("artifacts/best.ckpt", None, "missing"),
        ("code/pipeline/more.py", b"x", "one too many"),
    ],
)
def test_a_changed_folder_is_refused_and_the_file_named(model: Path, name: str, data: bytes | None, said: str) -> None:
    sign(model)
    (model / name).unlink() if data is None else (model / name).write_bytes(data)
    with pytest.raises(DataError, match=f"{said}: '{name}'"):
        verify(model)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("artifacts/best.ckpt", b"x", "not the one signed"),
        ("artifacts/best.ckpt", None, "missing"),
        ("artifacts/more.json", b"{}", "one too many"),
    ],
)
def test_a_part_is_compared_alone(model: Path, name: str, data: bytes | None, said: str) -> None:
    signature = sign(model)
    shutil.rmtree(model / "code")
    (model / "MLmodel").unlink()
    assert verify(model, "artifacts/") == signature
    (model / name).unlink() if data is None else (model / name).write_bytes(data)
    with pytest.raises(DataError, match=f"{said}: '{name}'"):
        verify(model, "artifacts/")


def test_a_link_is_refused(model: Path) -> None:
    sign(model)
    (model / "artifacts/best.ckpt").rename(model.parent / "elsewhere")
    (model / "artifacts/best.ckpt").symlink_to(model.parent / "elsewhere")
    with pytest.raises(DataError, match="link"):
        verify(model)


def test_without_the_key_nobody_can_sign(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Untrusted, match="no signature"):
        verify(model)
    sign(model)
    listing = json.loads((model / signing.LISTING).read_text())
    (model / "code/pipeline/predicting/predict.py").write_text("evil")
    listing["files"] = signing._digests(model)  # all that a stranger can write
    (model / signing.LISTING).write_text(json.dumps(listing))
    with pytest.raises(Untrusted, match="not made with this key"):
        verify(model)
    for text in ("", "[]", '{"signature": 1}', '{"signature": "x", "files": []}', "\xff"):
        (model / signing.LISTING).write_text(text)
        with pytest.raises(Untrusted):
            verify(model)
    sign(model)
    monkeypatch.setenv("SIGHTLINE_SIGNING_KEY", str(model.parent / "another.key"))
    with pytest.raises(Untrusted, match="no key"):
        verify(model)
    sign(model.parent / "keys")  # makes the other key
    with pytest.raises(Untrusted, match="not made with this key"):
        verify(model)


@pytest.mark.parametrize(("mode", "text"), [(0o604, "ab" * 32), (0o620, "ab" * 32), (0o600, "abc"), (0o600, "ab")])
def test_a_key_that_is_none_or_open_to_others_is_refused(model: Path, mode: int, text: str) -> None:
    sign(model)
    signing.key_file().write_text(text)
    signing.key_file().chmod(mode)
    with pytest.raises(ConfigError, match="others may read or change" if mode != 0o600 else "not a signing key"):
        verify(model)


def test_the_key_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SIGHTLINE_SIGNING_KEY")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert signing.key_file() == tmp_path / "sightline" / "signing.key"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert signing.key_file() == Path("/home/me/.config/sightline/signing.key")


def test_a_key_that_cannot_be_made_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_SIGNING_KEY", f"{model}/MLmodel/signing.key")
    with pytest.raises(ConfigError, match="cannot be made"):
        sign(model)


def _sign(folder: Path) -> None:
    os._exit(0 if sign(folder) else 1)


def test_processes_that_sign_first_at_once_agree_on_one_key(model: Path) -> None:
    context = multiprocessing.get_context("fork")
    copies = [model.parent / f"model{i}" for i in range(4)]
    for copy in copies:
        copy.mkdir()
        (copy / "a").write_text("a")
    processes = [context.Process(target=_sign, args=(copy,)) for copy in copies]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len({verify(copy) for copy in copies}) == 1
