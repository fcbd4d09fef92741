"""The only file that deletes folders: what is deleted is proven to lie inside a folder that is ours."""

from __future__ import annotations

import shutil
from pathlib import Path

from contracts.errors import ConfigError


def remove_tree(path: Path, *, inside: Path) -> None:
    """Delete the folder `path` with all that is in it, or the link where it is one; nothing there is no mistake.

    Args:
        inside: the project's folder, or another that this project made; `path` must lie below it.

    Raises:
        ConfigError: `path`, with links and `..` resolved, lies outside of `inside`, or is it. Nothing was deleted then.
        OSError: the system refuses.
    """
    base = inside.resolve()
    # A link itself may point anywhere, and only it is deleted; what leads to it is resolved.
    place = path.parent.resolve() / path.name if path.name not in ("", "..") else path.resolve()
    if place == base or base not in place.parents:
        raise ConfigError(
            "a folder that is to be deleted lies outside of the project: nothing was deleted",
            value=str(path),
            where=str(base),
            allowed="folders below the project's own",
        )
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.is_dir():
        shutil.rmtree(place)
