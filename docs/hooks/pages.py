"""mkdocs hook: the pages that are made of something else, and links that hold in the repository and on the pages.

README.md is the first page. The reference comes from the code: settings from the Configs, commands from typer, parts
and metrics from their docstrings (mkdocstrings), so a new part has its page without a line being added.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click
from typer.main import get_command

os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it reads every installed package's list of them

from docs.hooks import settings
from pipeline.cli import app
from pipeline.settings import discover
from pipeline.settings.outline import outlines
from pipeline.settings.sections import (
    ClusterConfig,
    DatasetConfig,
    LoaderConfig,
    RegistryConfig,
    ShardsConfig,
    TrackingConfig,
)
from pipeline.settings.train_config import InitConfig, TrainConfig

ROOT = Path(__file__).resolve().parents[2]
# File of the repository -> page. What lies in docs/ is a page by itself.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "data/README.md": "data.md",
    "lecture/README.md": "lecture.md",
    "tests/faults/README.md": "faults.md",
    "LICENSE": "license.md",
}
SECTIONS = {
    "datasets": (DatasetConfig, "An entry for each data set: `datasets: {NAME: {...}}`."),
    "shards": (ShardsConfig, ""),
    "loader": (LoaderConfig, "Every run's defaults; a run's own `loader` is laid over them."),
    "train": (TrainConfig, "Every run's defaults; a run's own `train` is laid over them."),
    "runs": (None, ""),
    "cluster": (ClusterConfig, ""),
    "tracking": (TrackingConfig, ""),
    "registry": (RegistryConfig, ""),
}
KINDS = {"task": "Tasks", "model": "Models", "source": "Sources", "world": "Generated worlds"}
# What parts are written against.
BASES = (
    "lightning_modules.base.task",
    "lightning_modules.base.families",
    "lightning_modules.base.optimizer",
    "lightning_modules.reports._report",
    "lightning_modules.augment.config",
    "pipeline.settings.sections",
    "pipeline.settings.train_config",
    "contracts.records",
    "contracts.raw",
)
_LINK = re.compile(r"(\]\()([^)\s#]*)(#[^)\s]*)?(?=\))")


def on_config(config: Any) -> Any:
    """The reference's place in the navigation."""
    parts = [{title: [_page(kind, name) for name in discover.names(kind)]} for kind, title in KINDS.items()]
    modules = {"Metrics": metrics(), "What metrics are made of": metric_parts(), "What parts are made of": BASES}
    python = [{title: [_module_page(module) for module in listed]} for title, listed in modules.items()]
    reference = ["reference/params.md", "reference/commands.md", *parts, *python]
    config.nav = [{"Reference": reference} if entry == "Reference" else entry for entry in config.nav]
    return config


def on_files(files: Files, config: Any) -> Files:
    for source, page in PAGES.items():
        text = (ROOT / source).read_text()
        content = (
            text if source.endswith(".md") else f"# {source.capitalize()}\n\n```text\n{text.strip(chr(10))}\n```\n"
        )
        files.append(File.generated(config, page, content=content))
    for page, content in reference_pages():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links between files of the repository become links between pages."""
    of = {target: source for source, target in PAGES.items()}
    here = page.file.src_uri
    source = of.get(here, f"docs/{here}")

    def linked(match: re.Match[str]) -> str:
        target, fragment = match[2], match[3] or ""
        if not target or "://" in target or target.startswith("mailto:") or here.startswith("reference/"):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        goal = PAGES.get(path, path.removeprefix("docs/") if path.startswith("docs/") else "")
        if not goal:
            raise PluginError(f"{source} links to {path}, which is no page: put it in docs/ or name it in {__name__}")
        return f"{match[1]}{posixpath.relpath(goal, posixpath.dirname(here) or '.')}{fragment}"

    return _LINK.sub(linked, markdown)


def reference_pages() -> Iterator[tuple[str, str]]:
    """(page, Markdown) of everything that is made of code."""
    yield "reference/commands.md", commands_page()
    with outlines():
        yield "reference/params.md", params_page()
        for kind in KINDS:
            for name in discover.names(kind):
                yield _page(kind, name), part_page(kind, name)
    for module in (*BASES, *metrics(), *metric_parts()):
        yield _module_page(module), f"# {module.rpartition('.')[2].strip('_')}\n\n`{module}`\n\n::: {module}\n"


def _page(kind: str, name: str) -> str:
    return f"reference/{kind}s/{name}.md"


def _module_page(module: str) -> str:
    return f"reference/python/{module.replace('._', '.')}.md"


def metrics() -> list[str]:
    """The modules that hold a `torchmetrics.Metric` over items."""
    return [module for module, text in _metric_modules() if re.search(r"^class \w+\(ItemMetric\)", text, re.MULTILINE)]


def metric_parts() -> list[str]:
    """What they are made of."""
    return [module for module, _ in _metric_modules() if module not in metrics()]


def _metric_modules() -> list[tuple[str, str]]:
    folder = ROOT / "lightning_modules/metrics"
    return [(f"lightning_modules.metrics.{path.stem}", path.read_text()) for path in sorted(folder.glob("[!_]*.py"))]


def commands_page() -> str:
    """Every command, as `--help` tells it."""
    import typer

    command = get_command(app)
    for one in command.commands.values():  # type: ignore[attr-defined]
        one.short_help = " ".join((one.help or "").split("\n\n")[0].split())  # typer would cut it after 45 letters
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="sightline", title="Command line")
    return text


def params_page() -> str:
    """Every section of params.yaml and what may stand in it."""
    text = [
        "# params.yaml\n",
        "Every setting of every section. `sightline check` holds a file to exactly this: it refuses other keys, kinds",
        "and numbers, all at once, in half a second. What a section does not set has the default given here.\n",
    ]
    told: dict[type, str] = {}
    for section, (config, said) in SECTIONS.items():
        text += [f"## {section}\n", said + "\n" if said else ""]
        if config is None:
            text.append(_runs())
            inside = [InitConfig]
            text.append(f"### init\n\n{settings.table(InitConfig)}")
        else:
            text.append(settings.table(config))
            inside = settings.sections_in(config)
        for below in inside:
            if below not in told and below is not InitConfig:
                told[below] = section
                text.append(f"### {settings.title(below)}\n\n{settings.table(below)}")
    return "\n".join(text)


def _runs() -> str:
    def linked(kind: str) -> str:
        return ", ".join(f"[{name}]({kind}s/{name}.md)" for name in discover.names(kind))

    return f"""An entry for each run: a data set, a task, a model that fits it, and how it is trained.

| setting | what may stand there | default | meaning |
| --- | --- | --- | --- |
| `dataset` | text | must be given | The name of a data set. |
| `task` | mapping with a `name`: {linked("task")} | must be given | What is learned, with the task's own settings. |
| `model` | mapping with a `name`: {linked("model")} | must be given | What learns it, with the model's own settings. |
| `train` | [train](#train) | `{{}}` | Laid over the shared section. |
| `loader` | [loader](#loader) | `{{}}` | Laid over the shared section. |
| `init` | [init](#init) or `null` | `null` | Start from the weights of another run. |

Sources of a data set: {linked("source")}. Generated worlds: {linked("world")}.
"""


def part_page(kind: str, name: str) -> str:
    """A part: its settings, then its file's docstrings."""
    module = discover.load(kind, name, where="docs")
    config = module.Task.Config if kind == "task" else module.Config
    where = {"task": f"task: {{name: {name}}}", "model": f"model: {{name: {name}}}"}
    where |= {"source": f"sources: {{{name}: {{}}}}", "world": f"world: {{name: {name}}}"}
    text = [f"# {name}\n", f"`{where[kind]}` in params.yaml.{_goes_with(kind, module)}\n", "## Settings\n"]
    text.append(settings.table(config))
    for below in settings.sections_in(config):
        text.append(f"### {settings.title(below)}\n\n{settings.table(below)}")
    text.append(f"## In Python\n\n::: {module.__name__}\n")
    return "\n".join(text)


def _goes_with(kind: str, module: Any) -> str:
    """The models of a task, and the tasks of a model."""
    other = {"task": "model", "model": "task"}.get(kind)
    if other is None:
        return ""
    spec = (module.Task if kind == "task" else module.Model).spec_class
    fitting = []
    for name in discover.names(other):
        part = discover.load(other, name, where="docs")
        if (part.Task if other == "task" else part.Model).spec_class is spec:
            fitting.append(f"[{name}](../{other}s/{name}.md)")
    return f" {'Models' if kind == 'task' else 'Tasks'} that go with it: {', '.join(fitting)}."
