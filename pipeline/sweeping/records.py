"""`sweeps/<name>.json`: every trial of a sweep and what became of it. It is all that a later call goes on from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AllowInfNan
from typing_extensions import TypedDict

from contracts.errors import ConfigError
from pipeline.settings.sweep import Sweep
from pipeline.shards.manifest import digest_of
from pipeline.system.project import Project, read_json, write_json

FOLDER = "sweeps"
Number = Annotated[float, AllowInfNan(False)]
State = Literal["running", "complete", "stopped", "failed"]


class _Entry(TypedDict):
    number: int
    state: State
    settings: dict[str, Any]
    value: Number | None
    epochs: int
    history: dict[str, Number]
    rungs: dict[str, Number]
    folder: str
    run_id: str
    failure: str


class _Document(TypedDict):
    sweep: str
    question: dict[str, Any]
    base: str
    run_id: str
    trials: list[_Entry]


@dataclass(kw_only=True)
class Trial:
    """One point of the space.

    Attributes:
        state: running (or interrupted), complete, stopped (early, since others were better) or failed.
        settings: by dotted name.
        value: of the metric, at the checkpoint that is kept; of a stopped one the best that was seen.
        history: epochs trained, as text -> the metric.
        rungs: what the rule that stops trials remembers of this one.
        folder: name of the training's folder below `state`.
        run_id: MLflow's.
        failure: why it failed.
    """

    number: int
    settings: dict[str, Any]
    state: State = "running"
    value: float | None = None
    epochs: int = 0
    history: dict[str, float] = field(default_factory=dict)
    rungs: dict[str, float] = field(default_factory=dict)
    folder: str = ""
    run_id: str = ""
    failure: str = ""

    def see(self, epochs: int, value: float) -> None:
        """A value of validation."""
        self.epochs = max(self.epochs, epochs)
        self.history[str(epochs)] = value


class Records:
    """The trials of a sweep, written down after every change."""

    def __init__(self, project: Project, sweep: Sweep, base: str):
        """Read what is there.

        Args:
            base: digest of what all trials have in common: the run's other settings, its data, its code.

        Raises:
            ConfigError: the file is of another question, or of other data, settings or code.
            DataError: the file is damaged.
        """
        self.path = path_of(project, sweep.name)
        self._head = {"sweep": sweep.name, "question": sweep.question, "base": base}
        self.run_id = ""
        self.trials: list[Trial] = []
        self._mode = sweep.mode
        if self.path.is_file():
            document: _Document = read_json(self.path, "the record of the sweep", _anew(self.path), _Document)
            self._compare(document, sweep)
            self.run_id = document["run_id"]
            self.trials = [Trial(**entry) for entry in document["trials"]]

    def _compare(self, document: _Document, sweep: Sweep) -> None:
        asked = digest_of(document["question"]) == digest_of(sweep.question)
        if asked and document["base"] == self._head["base"]:
            return
        differing = [key for key, value in sweep.question.items() if document["question"].get(key) != value]
        raise ConfigError(
            "this sweep was begun otherwise, and its trials cannot be compared with new ones",
            value=f"other {', '.join(differing)}" if not asked else "the run's other settings, its data or its code",
            where=str(self.path),
            fix=f"give the new one another file name, or {_anew(self.path)}",
        )

    def write(self) -> None:
        """Atomically."""
        write_json(self.path, self.document())

    def document(self) -> dict[str, Any]:
        return {**self._head, "run_id": self.run_id, "trials": [asdict(trial) for trial in self.trials]}

    def of(self, *states: State) -> list[Trial]:
        return [trial for trial in self.trials if trial.state in states]

    def ranked(self) -> list[Trial]:
        """Complete trials, the best first."""
        return sorted(self.of("complete"), key=self._rank)

    def _rank(self, trial: Trial) -> tuple[float, int]:
        assert trial.value is not None
        return (-trial.value if self._mode == "max" else trial.value, trial.number)


def path_of(project: Project, name: str) -> Path:
    """Of the results of the sweep `name`."""
    return project.root / FOLDER / f"{name}.json"


def _anew(path: Path) -> str:
    return f"remove {path} to begin anew"
