"""The pages that are made of code: every part, setting and command has its place, with what may stand there."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import subprocess
import sys
import types

import pytest
from mkdocs.exceptions import PluginError

from contracts.ranges import Range, check_ranges
from docs.hooks import pages, settings, shared_words
from pipeline.cli import app
from pipeline.settings import discover

# Apart from this process: the pages are made of outlines of the parts, which would stay here in their place.
MAKE = """
import dataclasses, json, typing
from contracts.ranges import Range, check_ranges
from docs.hooks import pages, settings
from pipeline.settings import discover
from pipeline.settings.outline import outlines

made = dict(pages.reference_pages())
configs = [config for config, _ in pages.SECTIONS.values() if config] + [pages.InitConfig]
with outlines():
    for kind in pages.KINDS:
        for name in discover.names(kind):
            module = discover.load(kind, name, where="test")
            configs.append(module.Task.Config if kind == "task" else module.Config)
    configs += [below for config in configs for below in settings.sections_in(config)]
    fields = [
        [f"{config.__module__}.{config.__qualname__}", dataclasses.asdict(row)]
        for config in dict.fromkeys(configs) for row in settings.settings_of(config)
    ]
print(json.dumps({"pages": made, "fields": fields}))
"""


@pytest.fixture(scope="module")
def made(root):
    done = subprocess.run([sys.executable, "-c", MAKE], cwd=root, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_every_part_has_its_page_and_its_place(made):
    config = types.SimpleNamespace(nav=["Reference"])
    pages.on_config(config)
    listed = set(re.findall(r"reference/[\w./]+\.md", str(config.nav)))
    assert listed == made["pages"].keys()
    for kind in pages.KINDS:
        for name in discover.names(kind):
            page = made["pages"][f"reference/{kind}s/{name}.md"]
            assert page.startswith(f"# {name}\n") and f"::: {discover.KINDS[kind]}.{name}" in page
            assert f"]({kind}s/{name}.md)" in made["pages"]["reference/params.md"]


def test_every_section_of_the_file_is_told(made):
    from pipeline.settings.params import SECTIONS

    headings = re.findall(r"^## (\w+)$", made["pages"]["reference/params.md"], re.MULTILINE)
    assert sorted(headings) == sorted(SECTIONS)


def test_every_setting_says_what_it_means(made):
    """In its Config's docstring: an entry under Attributes, or a sentence with its name in backticks."""
    assert [f"{config}.{row['name']}" for config, row in made["fields"] if not row["meaning"]] == []
    assert len(made["fields"]) > 200


OF_RUNS = ("gates", "slices", "max_latency_ms", "max_export_loss")  # mappings, whose ranges `RegistryConfig` checks


def test_every_number_says_its_range(made):
    """As `tests/contract/test_parts.py` asks each number to have one."""
    free = [
        f"{config}.{row['name']}" for config, row in made["fields"] if "number" in row["kind"] and not row["allowed"]
    ]
    assert {name.rpartition(".")[2] for name in free} <= {*OF_RUNS, "mask_values", "forget_bias", "lr"}, free


def test_shared_words_are_of_settings_that_say_nothing_themselves(made):
    used = {row["meaning"] for _, row in made["fields"]}
    assert [name for name, text in shared_words.WORDS.items() if text not in used] == []


def test_every_command_is_told_whole(made):
    page = made["pages"]["reference/commands.md"]
    for command in app.registered_commands:
        assert f"## `sightline {command.name}`" in page
    assert "--version" in page and "..." not in re.findall(r"^\* `check`: .*$", page, re.MULTILINE)[0]


def test_no_docstring_of_the_reference_loses_words_to_html(made, root):
    """What looks like a tag is one in Markdown, unless it stands in backticks."""
    lost = []
    for module in {name for page in made["pages"].values() for name in re.findall(r"^::: (\S+)$", page, re.MULTILINE)}:
        for node in ast.walk(ast.parse((root / f"{module.replace('.', '/')}.py").read_text())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                text = re.sub("`[^`]*`", "", ast.get_docstring(node) or "")
                lost += [f"{module}: {tag}" for tag in re.findall("</?[a-z_]+>", text)]
    assert lost == []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base:
    """`size` is the side; `mode` says how. `low`: the least."""

    size: int = 3
    mode: str = "a|b"
    low: float | None = None

    def __post_init__(self) -> None:
        check_ranges(self, size=Range(1, 9), low=Range(0, 1, open_low=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Base):
    """
    Attributes:
        size: of <this> one; None: any,
            in two lines.
        one, other: together. last: by itself.
    """

    one: tuple[int, ...] = ()
    other: dict[str, int] = dataclasses.field(default_factory=dict)
    last: Base = Base(size=4)


def test_a_setting_is_told_by_its_dataclass():
    rows = {row.name: row for row in settings.settings_of(Config)}
    assert (rows["size"].kind, rows["size"].default, rows["size"].allowed) == (
        "whole number",
        "`3`",
        "1 or more and at most 9",
    )
    assert rows["size"].meaning == "Of &lt;this> one; null: any, in two lines."
    assert rows["mode"].meaning == "`size` is the side; `mode` says how."
    assert (rows["low"].kind, rows["low"].allowed, rows["low"].meaning) == (
        "number or `null`",
        "more than 0 and at most 1",
        "The least.",
    )
    assert (rows["one"].meaning, rows["other"].meaning, rows["last"].meaning) == (
        "Together.",
        "Together.",
        "By itself.",
    )
    assert (rows["one"].kind, rows["other"].kind) == ("list of whole number", "mapping of text to whole number")
    assert (rows["last"].kind, rows["last"].default) == ("[base](#base)", "`{size: 4}`")
    assert settings.sections_in(Config) == [Base]
    assert "| `mode` | text | `a\\|b` |" in settings.table(Config)


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("index.md", "docs/adding.md#your-own-files", "adding.md#your-own-files"),
        ("index.md", "LICENSE", "license.md"),
        ("index.md", "docs/images/predictions.jpg", "images/predictions.jpg"),
        ("safety.md", "../tests/faults/README.md", "faults.md"),
        ("faults.md", "../../docs/safety.md", "safety.md"),
        ("safety.md", "metrics.md", "metrics.md"),
        ("safety.md", "https://a.b/c.md", "https://a.b/c.md"),
    ],
)
def test_links_of_the_repository_lead_from_page_to_page(page, link, expected):
    here = types.SimpleNamespace(file=types.SimpleNamespace(src_uri=page))
    assert pages.on_page_markdown(f"a [b]({link}) c", here) == f"a [b]({expected}) c"


def test_a_link_to_what_is_no_page_stops_the_build():
    here = types.SimpleNamespace(file=types.SimpleNamespace(src_uri="index.md"))
    with pytest.raises(PluginError, match=r"links to dvc\.yaml, which is no page"):
        pages.on_page_markdown("[stages](dvc.yaml)", here)
