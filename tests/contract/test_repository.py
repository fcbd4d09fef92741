"""What a newcomer finds: a changelog that the version is held to, living links, a license, hooks that run."""

from __future__ import annotations

import datetime
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import contracts
from docs.hooks.settings import slug

RELEASE = re.compile(r"^## \[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d{2}-\d{2})$", re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def releases(root: Path) -> list[tuple[tuple[int, ...], datetime.date]]:
    found = RELEASE.findall((root / "CHANGELOG.md").read_text())
    return [(tuple(map(int, numbers)), datetime.date.fromisoformat(date)) for *numbers, date in found]


def test_the_version_is_the_newest_release_of_the_changelog(root, capsys):
    from pipeline.cli import app

    with pytest.raises(SystemExit) as ended:
        app(["--version"])
    newest = ".".join(map(str, releases(root)[0][0]))
    assert (ended.value.code, capsys.readouterr().out) == (0, f"sightline {newest}\n")
    assert contracts.__version__ == newest


def test_the_changelog_is_in_order(root):
    """Keep a Changelog: what is not released first, then releases from the newest on, and known kinds of changes."""
    text, found = (root / "CHANGELOG.md").read_text(), releases(root)
    headings = re.findall(r"^## .*$", text, re.MULTILINE)
    assert headings[0] == "## [Unreleased]"
    assert len(headings) == 1 + len(found), "a heading is no `## [x.y.z] - YYYY-MM-DD`"
    assert found == sorted(found, reverse=True)
    kinds = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_license_is_whole_and_named(root):
    text = (root / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert len(text.splitlines()) > 200 and "END OF TERMS AND CONDITIONS" in text
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
    assert [file for pattern in project["license-files"] for file in root.glob(pattern)] == [root / "LICENSE"]


def texts(root: Path) -> list[Path]:
    """Every Markdown file that git would keep."""
    listed = subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=root, text=True
    )
    return [path for path in (root / name for name in listed.split()) if path.is_file()]


def anchors(path: Path) -> set[str]:
    lines = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", lines, re.MULTILINE)}


def dead_links(path: Path) -> list[str]:
    dead = []
    for link in LINK.findall(path.read_text()):
        if "://" in link or link.startswith("mailto:"):
            continue
        target, _, fragment = link.partition("#")
        goal = (path.parent / target).resolve() if target else path
        if not goal.exists() or (fragment and fragment not in anchors(goal)):
            dead.append(f"{path.name}: {link}")
    return dead


def test_no_link_is_dead(root):
    found = texts(root)
    assert root / "README.md" in found and len(found) >= 12
    assert [link for path in found for link in dead_links(path)] == []


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "b.md").write_text("# Of *two* `words`\n\n```\n# no heading\n```\n")
    (tmp_path / "a.md").write_text("[x](b.md) [x](b.md#of-two-words) [x](https://c) [x](c.md) [x](b.md#no-heading)")
    assert dead_links(tmp_path / "a.md") == ["a.md: c.md", "a.md: b.md#no-heading"]


def test_pictures_are_small(root):
    pictures = list((root / "docs/images").iterdir())
    assert pictures and all(picture.stat().st_size < 200_000 for picture in pictures)


def test_hooks_run_what_ci_runs_without_network(root):
    document = yaml.safe_load((root / ".pre-commit-config.yaml").read_text())
    (repository,) = document["repos"]
    assert repository["repo"] == "local"
    entries = [hook["entry"] for hook in repository["hooks"]]
    assert all(hook["language"] == "system" for hook in repository["hooks"])
    recipes = (root / "Makefile").read_text().replace("$(BIN)", ".venv/bin")
    for tool in ("ruff check", "ruff format", "mypy"):
        assert any(entry.startswith(f".venv/bin/{tool}") for entry in entries)
        assert f"\t.venv/bin/{tool}" in recipes
    named = [word for entry in entries for word in entry.split() if word.startswith("tests/")]
    assert named and all((root / name).exists() for name in named)


def test_every_target_that_the_texts_name_is_in_the_makefile(root):
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.MULTILINE))
    for path in (root / "README.md", root / "CONTRIBUTING.md", *(root / "docs").glob("*.md")):
        named = re.findall(r"(?:`|^)make ([a-z-]+(?: [a-z-]+)*)(?=`|\s)", path.read_text(), re.MULTILINE)
        assert {name for names in named for name in names.split()} <= targets | {"repro"}, path.name
