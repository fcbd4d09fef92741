"""What train, evaluate and register share about one run: its data, its fingerprint, where its state lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Len

from contracts.errors import DataError
from contracts.records import DataSpec
from pipeline.settings import discover, own
from pipeline.settings.code import Code, starting_digest
from pipeline.settings.params import Params, Run
from pipeline.shards.manifest import digest_of, load_manifest
from pipeline.system.disk import file_sha256
from pipeline.system.project import Project, read_json
from pipeline.training.run_files import trained

TokenCount = Annotated[list[str | int], Len(2, 2)]
Vocabulary = dict[str, list[TokenCount]]


@dataclass(frozen=True)
class RunData:
    """A run with the data it is trained on."""

    run: Run
    manifest: dict[str, Any]
    spec: DataSpec
    code: str  # digest of what trains it
    start: str | None = (
        None  # sha256 of the file that it starts from; None: of none, or of one that has a name for good
    )

    @property
    def fingerprint(self) -> str:
        """Changes with what changes the result: settings, data, vocabulary, code. How data is read does not count."""
        document = {
            "run": self.run.weight_settings(),
            "manifest": self.manifest["digest"],
            "data": self.spec.to_dict(),
            "code": self.code,
            "start": self.start,
        }
        return digest_of(document)


def load_run(project: Project, params: Params, name: str) -> RunData:
    """The run `name` of params.yaml with its manifest, the texts that its task reads, and what it starts from.

    Raises:
        DataError: one of them is not there yet, or damaged.
    """
    run = params.run(name)
    manifest = load_manifest(project.shards(run.dataset), run.dataset)
    vocabulary = project.vocabulary(run.dataset)
    words = {}
    if vocabulary.exists():
        fix = f"dvc repro --force vocab@{run.dataset}"
        counted = read_json(vocabulary, "the vocabulary", fix, Vocabulary)
        # Those of its task alone: other annotations on the same images, or a new kind of text, retrain nothing.
        texts = discover.load("task", run.task_name, where=f"runs.{name}.task").Task.texts
        words = {text: counted[text] for text in texts if text in counted}
    spec = DataSpec(dataset=run.dataset, classes=tuple(manifest["classes"]), vocabulary=words)
    return RunData(run, manifest, spec, code_of_run(project, run), _start(project, run))


def _start(project: Project, run: Run) -> str | None:
    if run.init is None or run.init.kind in ("model", "torchvision"):
        return None
    if run.init.run is not None:
        return trained(project, run.init.run)["checkpoint_sha256"]
    path = project.root / run.init.source
    if not path.is_file():
        raise DataError("no such file of weights", value=run.init.source, where=f"runs.{run.name}.init.from")
    return file_sha256(path)


def code_of_run(project: Project, run: Run) -> str:
    """Digest of the code that trains a run, as it is now."""
    code = Code().digest({"task": {"name": run.task_name}, "model": {"name": run.model_name}})
    own_code = {"own": own.digests(run.loader.stages, project.root), "init": run.init and starting_digest()}
    parts = {"code": code, **{name: part for name, part in own_code.items() if part}}
    return digest_of(parts) if len(parts) > 1 else code
