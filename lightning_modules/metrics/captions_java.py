"""METEOR 1.5 and SPICE 1.0 of captions with the official Java programs, where they are installed.

METEOR (Denkowski and Lavie, 2014) comes with the optional package pycocoevalcap. SPICE (1607.08822) also needs Stanford
CoreNLP 3.6.0 and its models in that package's folder; they are never fetched from here. What cannot run is
reported with the reason, never replaced by something similar.

The package's own wrappers are not used: they leave the process behind on an error, decode by the machine's locale and
write into the package's folder.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np

from lightning_modules.metrics.measurement import Measurement, ratio_of_sums
from lightning_modules.metrics.ptb_tokenizer import comparable_tokens

_PACKAGE = "pycocoevalcap"
_METEOR_JAR = Path("meteor", "meteor-1.5.jar")
_SPICE_JAR = Path("spice", "spice-1.0.jar")
_SPICE_MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
_GRACE_S = 5.0  # for a failing Java to end by itself
# Text encoding and decimal point must not depend on where this runs.
_JAVA = ("java", "-Dfile.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US")


class _NotComputed(Exception):
    """Why a metric cannot be computed here."""


def measure_java(references: Sequence[Sequence[str]], hypotheses: Sequence[str]) -> list[Measurement]:
    """METEOR and SPICE of one system, both in 0..1; a Measurement with `not_computed` for what cannot run.

    METEOR needs 2 GB of memory and about 30 s for 1,000 images.

    Args:
        references: per image one or more captions as written; they are tokenised here.
        hypotheses: one caption per image, in the same order.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(references)} images")
    captions = _tokenized(hypotheses)
    groups = [_tokenized(group) for group in references]
    return [_measure("METEOR", _meteor, groups, captions), _measure("SPICE", _spice, groups, captions)]


def _tokenized(captions: Sequence[str]) -> list[str]:
    # "|||" separates METEOR's captions; only a markup tag can hold it.
    return [" ".join(tokens).replace("|||", "") for tokens in comparable_tokens(captions)]


_Scorer = Callable[[Path, Sequence[Sequence[str]], Sequence[str]], Measurement]


def _measure(name: str, scorer: _Scorer, references: Sequence[Sequence[str]], hypotheses: Sequence[str]) -> Measurement:
    try:
        if not hypotheses:
            raise _NotComputed("there are no images")
        return scorer(_package_folder(), references, hypotheses)
    except _NotComputed as error:
        return Measurement(
            values={},
            variant="official Java program",
            source=_PACKAGE,
            num_items=len(hypotheses),
            not_computed={name: str(error)},
        )


def _package_folder() -> Path:
    if shutil.which("java") is None:
        raise _NotComputed("no Java runtime (java) on the PATH")
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise _NotComputed(f"the package {_PACKAGE} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def _source(program: str) -> str:
    try:
        return f"{program} of {_PACKAGE} {importlib.metadata.version(_PACKAGE)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{program} of {_PACKAGE}"


def _need(path: Path) -> Path:
    if not path.is_file():
        raise _NotComputed(f"{path.name} is not in the package {_PACKAGE}")
    return path


def _failure(program: str, code: int | None, reason: Exception, errors: IO[bytes]) -> _NotComputed:
    """What went wrong and what Java said last."""
    errors.seek(0)
    last = errors.read().decode("utf-8", "replace").strip().splitlines()[-1:]
    return _NotComputed("; ".join([f"{program} ended with status {code}", str(reason), *last]))


@contextmanager
def _running(command: Sequence[str], folder: Path, errors: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A process to talk to, which has ended when the block is left, however it is left."""
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=_environment()
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # closing writes what Java no longer takes
                pipe.close()  # type: ignore[union-attr]


def _meteor(folder: Path, references: Sequence[Sequence[str]], hypotheses: Sequence[str]) -> Measurement:
    jar = _need(folder / _METEOR_JAR)
    command = [*_JAVA, "-Xmx2G", "-jar", jar.name, "-", "-", "-stdio", "-l", "en", "-norm"]
    # Errors go to a file: nobody reads them meanwhile, and a full pipe would block Java.
    with tempfile.TemporaryFile() as errors, _running(command, jar.parent, errors) as process:
        try:
            score = _meteor_dialogue(process, references, hypotheses)
        except (OSError, ValueError) as error:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)  # for its own exit status
            raise _failure("METEOR", process.poll(), error, errors) from error
    return Measurement(
        values={"METEOR": score},
        variant="METEOR 1.5, -l en -norm, tokens of the PTB tokenizer, corpus score",
        source=_source("METEOR 1.5"),
        num_items=len(hypotheses),
    )


def _meteor_dialogue(
    process: subprocess.Popen[bytes], references: Sequence[Sequence[str]], hypotheses: Sequence[str]
) -> float:
    """METEOR answers each SCORE line with statistics, and one EVAL line of them with all scores, the corpus's last.

    Raises OSError or ValueError where Java ends early or answers something else.
    """

    def ask(*parts: str) -> None:
        assert process.stdin is not None
        process.stdin.write((" ||| ".join(parts) + "\n").encode("utf-8", "replace"))
        process.stdin.flush()

    def answer() -> str:
        assert process.stdout is not None
        line = process.stdout.readline().decode("utf-8", "replace").strip()
        try:
            float(line.partition(" ")[0])
        except ValueError:
            raise ValueError(f"unexpected answer {line!r}") from None
        return line

    statistics = []
    for group, hypothesis in zip(references, hypotheses, strict=True):
        ask("SCORE", *group, hypothesis)
        statistics.append(answer())
    ask("EVAL", *statistics)
    scores = [float(answer()) for _ in range(len(hypotheses) + 1)]
    return scores[-1]


def _environment() -> dict[str, str]:
    return os.environ | {"LC_ALL": "C.UTF-8"}


def _spice(folder: Path, references: Sequence[Sequence[str]], hypotheses: Sequence[str]) -> Measurement:
    jar = _need(folder / _SPICE_JAR)
    for name in _SPICE_MODELS:
        if not (jar.parent / "lib" / name).is_file():
            raise _NotComputed(f"{name} is not in the spice/lib folder of the package {_PACKAGE}")
    document = [
        {"image_id": i, "test": hypothesis, "refs": list(group)}
        for i, (group, hypothesis) in enumerate(zip(references, hypotheses, strict=True))
    ]
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as errors:
        given, result = Path(scratch, "captions.json"), Path(scratch, "scores.json")
        given.write_text(json.dumps(document))
        command = [*_JAVA, "-Xmx8G", "-jar", jar.name, str(given), "-out", str(result), "-subset", "-silent"]
        # `run` kills Java if this is interrupted.
        code = subprocess.run(
            command, cwd=jar.parent, stdout=subprocess.DEVNULL, stderr=errors, env=_environment(), check=False
        ).returncode
        try:
            items = {item["image_id"]: item["scores"]["All"]["f"] for item in json.loads(result.read_bytes())}
            scores = np.array([float(items[i]) for i in range(len(hypotheses))])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _failure("SPICE", code, error, errors) from error
    return Measurement(
        values={"SPICE": math.fsum(scores) / len(scores)},
        variant="SPICE 1.0, F score over all tuples, tokens of the PTB tokenizer, mean over images",
        source=_source("SPICE 1.0"),
        num_items=len(scores),
        resample=lambda weights: {"SPICE": ratio_of_sums(weights, scores, np.ones(len(scores)))},
    )
