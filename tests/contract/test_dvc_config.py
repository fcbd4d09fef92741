""".dvc/config: what DVC would do in silence if it were not told otherwise."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path


def settings(root: Path) -> ConfigParser:
    parser = ConfigParser()
    parser.read_string("\n".join(line.strip() for line in (root / ".dvc/config").read_text().splitlines()))
    return parser


def test_every_remote_verifies_what_it_fetches(root):
    parser = settings(root)
    remotes = [name for name in parser.sections() if "remote" in name]
    assert remotes, "the template shows one"
    for name in remotes:
        assert parser.getboolean(name, "verify", fallback=False), name


def test_nothing_is_sent_home(root):
    assert not settings(root).getboolean("core", "analytics")
    assert not settings(root).getboolean("core", "check_update")


def test_outputs_are_links_into_the_cache(root):
    """`reflink` first would copy where the file system has none: ext4. Links never fall back to symlinks, which a
    container that mounts the project alone cannot follow."""
    assert settings(root).get("cache", "type").strip('"').split(",") == ["hardlink", "copy"]
