"""What tells a model that this project registered from any other in the registry.

A registered model is code: MLflow runs what the model's folder ships. Whoever may write to the registry or to its
artifact store could put other code there, and a plain digest beside it. So the folder carries the digests of all its
files under a keyed signature (HMAC-SHA256), and nobody without the key can write another.

The key is the user's, in ~/.config/sightline/signing.key (mode 0600), outside of any project: no clone, archive or
image of a project carries it. SIGHTLINE_SIGNING_KEY names another file, which a team or its CI shares.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path

from contracts.errors import ConfigError, DataError

LISTING = "signed.json"
# Written by MLflow into the downloaded copy: name and version, which nothing here reads.
_ADDED_BY_MLFLOW = {"registered_model_meta"}
_KEY_BYTES = 32


class Untrusted(ConfigError):
    """The model was not signed with this key: it may be anyone's."""


def key_file() -> Path:
    """Where the key lies, or will."""
    named = os.environ.get("SIGHTLINE_SIGNING_KEY")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME")
    try:
        return (Path(base) if base else Path.home() / ".config") / "sightline" / "signing.key"
    except RuntimeError:
        raise ConfigError(
            "there is no home folder for the key that signs models", fix="set SIGHTLINE_SIGNING_KEY to a file"
        ) from None


def sign(folder: Path) -> str:
    """List every file of a model's folder with its sha256 in `signed.json`, under the signature that is returned.

    The key is made on first use.

    Raises:
        ConfigError: the key cannot be read or made, or others may change it.
    """
    path = key_file()
    if not path.exists():
        _make_key(path)
    files = _digests(folder)
    signature = _signature(_load_key(path), files)
    (folder / LISTING).write_text(json.dumps({"signature": signature, "files": files}, indent=1) + "\n")
    return signature


def verify(folder: Path, part: str = "") -> str:
    """Compare a model's folder with its signature; returns it. Nothing of the folder is run or unpickled.

    Args:
        part: of the model's folders the only one that is there, such as "artifacts/"; "": all are.

    Raises:
        Untrusted: there is no signature, or it was not made with this key.
        DataError: the signature is ours, but a file is another, missing or too many: it names the file.
        ConfigError: the key cannot be read, or others may change it.
    """
    try:
        listing = json.loads((folder / LISTING).read_text())
        signature, files = (
            str(listing["signature"]),
            {str(name): str(digest) for name, digest in listing["files"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise Untrusted("it carries no signature") from None
    path = key_file()
    if not path.exists():
        raise Untrusted("this machine has no key to check it with", where=str(path))
    if not hmac.compare_digest(signature.encode(), _signature(_load_key(path), files).encode()):
        raise Untrusted("its signature was not made with this key", where=str(path))
    present = _digests(folder)
    for name in sorted({name for name in files if name.startswith(part)} | present.keys()):
        if files.get(name) != present.get(name):
            what = "missing" if name not in present else "one too many" if name not in files else "not the one signed"
            raise DataError(
                f"the model was changed after it was registered: a file is {what}",
                value=name,
                fix="nothing of it was run; find out who writes to the artifact store, and register the run again",
            )
    return signature


def _digests(folder: Path) -> dict[str, str]:
    """sha256 by path of all files that the signature covers. A link is refused: what it leads to may change."""
    out = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise DataError("a model's folder holds a link", value=name)
        if path.is_file() and name not in {LISTING, *_ADDED_BY_MLFLOW}:
            with open(path, "rb") as file:
                out[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return out


def _signature(key: bytes, files: dict[str, str]) -> str:
    return hmac.new(key, json.dumps(files, sort_keys=True).encode(), "sha256").hexdigest()


def _make_key(path: Path) -> None:
    """A new key, whole or not at all, and only one however many processes ask for it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(_KEY_BYTES) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(part, path)
        except FileExistsError:
            pass  # another process was faster: its key is the one
        finally:
            part.unlink()
    except OSError as error:
        raise ConfigError(
            "the key that signs models cannot be made",
            value=str(path),
            where=str(error),
            fix="set SIGHTLINE_SIGNING_KEY to a file that can be written",
        ) from error


def _load_key(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the key that signs models cannot be read", value=str(path), where=str(error)) from error
    if mode & 0o027:
        raise ConfigError(
            "others may read or change the key that signs models",
            value=f"{path}, mode {mode & 0o777:03o}",
            allowed="600, or 640 for a key that a group shares",
            fix=f"chmod 600 {path}",
        )
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) < _KEY_BYTES:
        raise ConfigError("not a signing key", value=str(path), allowed=f"{2 * _KEY_BYTES} hexadecimal digits")
    return key
