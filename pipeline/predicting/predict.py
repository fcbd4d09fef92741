"""Predict with a trained run or a registered model; print one JSON document or JSON lines, draw pictures.

    sightline predict segmentation_fcn photo.jpg
    sightline predict detection_faster_rcnn photos/ 'more/*.png' film.mp4 --every 10 --json found.jsonl
    sightline predict vqa_lstm@champion photo.jpg --question "what colour is the circle?"
    sightline predict telling photo.jpg --question "what color is it?" --candidates "red | dark blue"
    sightline predict a_clip_model frames/ clip.gif --fps 10

A run's name stands for artifacts/<run>/best.ckpt, read with the code of this folder. An MLflow URI stands for a model
with the code that it ships, which may be older or newer: that one runs in a process of its own, and only if this
project registered it, or with --trust.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import ConfigError, DataError
from contracts.inputs import Clip, check_inputs
from pipeline.ingest.tree import VIDEOS
from pipeline.predicting import output
from pipeline.predicting.given import STDIN, Item, Kind, check_names, names, read
from pipeline.predicting.request import Request, arguments_of, check_options
from pipeline.system.disk import file_sha256
from pipeline.system.progress import note, progress_bar
from pipeline.system.project import Project
from pipeline.tracking.names import Named, named, shipped

if TYPE_CHECKING:
    from pipeline.predicting.batches import Answered
    from pipeline.predicting.following import Following
    from pipeline.training.predictor import Predictor

_NUM_TOLD = 20  # of the inputs that failed
_PATIENCE_S = 10.0  # for a process that was interrupted


def run(request: Request) -> int:
    """The command: predict, print. Exit code 1 where an input failed."""
    check_options(request)
    if not request.cluster:
        check_names(request.images)
    project = Project.here()
    chosen = named(project, request.model)
    if chosen.uri is not None:
        return _predict_with_shipped_code(request, project, chosen)
    assert chosen.checkpoint is not None
    name = request.label or (chosen.checkpoint.parent.name if chosen.run is None else chosen.run)
    if request.cluster:
        from pipeline.predicting.tars import predict_tars

        return predict_tars(request, chosen.checkpoint, request.label or request.model, project)
    try:
        return _answer_all(request, chosen.checkpoint, name)
    except BrokenPipeError:  # `| head` has what it wants
        output.leave_closed_pipe()
        return 1


def _answer_all(request: Request, checkpoint: Path, label: str) -> int:
    from pipeline.predicting.batches import load

    model = request.label or request.model
    about = {"model": model, "weights": digest_of(checkpoint)}
    done = output.begun(request.json or output.STDOUT, about, resume=request.resume)
    predictor = load(checkpoint, request.score)
    answers = Answers(predictor, request, label, done)
    head = {"model": model, "run": predictor.run["name"], "task": predictor.run["task_name"]}
    to_file = request.json not in (None, output.STDOUT)
    num_done, num_failed, start_s = 0, 0, time.monotonic()
    with ExitStack() as stack:
        # A bar beside answers on the same terminal would tear both.
        advance = stack.enter_context(progress_bar("predict", None)) if to_file or not sys.stdout.isatty() else None
        lines = output.document(head) if request.json is None else output.lines(request.json, about)
        write = stack.enter_context(lines)
        for entry in answers.entries():
            write(entry)
            num_done += 1
            if "error" in entry:
                num_failed += 1
                _tell_failed(entry, num_failed)
            if advance is not None:
                advance(1)
    if to_file:
        rate = num_done / max(1e-9, time.monotonic() - start_s)
        before = f", {len(done.inputs)} done before ({done.failed} failed)" if done.inputs else ""
        print(
            f"predict: {num_done} answers, {num_failed} failed{before}, {rate:.1f} a second: {request.json}",
            file=sys.stderr,
        )
    return 1 if num_failed + done.failed else 0


def _tell_failed(entry: Mapping[str, Any], number: int) -> None:
    if number <= _NUM_TOLD:
        error = entry["error"]
        more = "".join(f"\n  {name}: {error[name]}" for name in ("where", "allowed", "fix") if name in error)
        print(f"{error['kind']}: {error['message']}{more}", file=sys.stderr, flush=True)
    elif number == _NUM_TOLD + 1:
        note("more inputs failed; the answers tell each")


def digest_of(checkpoint: Path) -> str:
    """What tells one checkpoint's answers from another's: 16 digits of its sha256."""
    return file_sha256(checkpoint)[:16]


def predict(
    checkpoint: Path,
    images: Sequence[Path],
    texts: Mapping[str, str],
    out: Path,
    label: str,
    *,
    fps: float | None = None,
) -> dict[str, Any]:
    """Predict for each image or clip with the texts, or for the texts alone, and draw it as
    `<out>/<image stem>.<label>.png`.

    Args:
        images: as on the command line; of a model that takes clips what `read_clip` reads, with `fps`.
        texts: by the name of the input, `question` and the like.

    Returns:
        JSON values: run, task and, of each image or clip, the inputs, `answers` (one for each item of it), `picture`;
        or `error` in place of both.

    Raises:
        ConfigError: an input is missing, or was given to a model that does not take it.
        DataError: the checkpoint cannot be read.
    """
    from pipeline.predicting.batches import load

    request = Request(model=label, images=tuple(map(str, images)), texts=texts, out=str(out), fps=fps)
    predictor = load(checkpoint, None)
    entries = list(Answers(predictor, request, label, output.Done()).entries())
    return {"run": predictor.run["name"], "task": predictor.run["task_name"], "predictions": entries}


@dataclass
class Answers:
    """What a model answers to a request, one by one, without what is `done`.

    Raises:
        ConfigError: an input is missing, or this model does not take it.
    """

    predictor: Predictor
    request: Request
    label: str
    done: output.Done

    def __post_init__(self) -> None:
        request, inputs = self.request, self.predictor.inputs
        self.kind: Kind = "clip" if "clip" in inputs else "image"
        check_asked(self.predictor, self.kind if request.images or request.paths else None, request.texts)
        if request.fps is not None and self.kind == "image":
            raise _no_use(f"--fps {request.fps:g}", "this model takes no clip", self.kind)
        if request.every != 1 and self.kind == "clip":
            raise _no_use(f"--every {request.every}", "this model takes a clip with all its frames", "--fps")
        if STDIN in request.images and self.kind == "clip":
            raise _no_use(STDIN, "a clip cannot be read from standard input", "a file or a folder")
        for item in request.images if request.track else ():
            if Path(item).suffix.lower() not in VIDEOS:
                allowed = f"videos: {', '.join(VIDEOS)}"
                raise ConfigError("no video to follow objects through", value=item, where="--track", allowed=allowed)
        self._label = re.sub(r"[^\w.-]+", "-", self.label.removeprefix("models:/").removeprefix("runs:/"))
        self._taken = {picture.name for picture in self.done.pictures}
        self._drawn: Counter[str] = Counter()
        self._following: Following | None = None
        if request.track:
            from pipeline.predicting.following import Following

            out = Path(request.out) if request.pictures else None
            self._following = Following(self.predictor, out, request.every, self._film_name)

    def entries(self) -> Iterator[dict[str, Any]]:
        """JSON values of each input; pictures are drawn meanwhile."""
        from pipeline.predicting.batches import answered, default_size

        size = self.request.batch or default_size()
        try:
            for one in answered(self.predictor, self._items(), self.kind, self.request.texts, size):
                yield self._entry(one)
        finally:
            if self._following is not None:
                self._following.close()

    def _items(self) -> Iterable[Item]:
        request = self.request
        if not (request.images or request.paths):
            if not self._is_done("", None):
                yield Item(name="", stem="-".join(request.texts))
            return
        for name in names(request.images, request.paths, self.kind):
            yield from read(name, self.kind, fps=request.fps, every=request.every, skipped=self._is_done)

    def _is_done(self, name: str, frame: int | None) -> bool:
        return (name, frame) in self.done.inputs

    def _entry(self, one: Answered) -> dict[str, Any]:
        from pipeline.predicting.batches import described

        item = one.item
        entry: dict[str, Any] = {str(self.kind): item.name} if item.name else {}
        entry |= {} if item.frame is None else {"frame": item.frame, "time_s": item.time_s}
        entry |= self.request.texts
        if one.error is not None:
            return {**entry, "error": described(one.error)}
        assert one.record is not None and one.predictions is not None
        if self._following is not None and item.frame is None:
            return {**entry, "error": described(DataError("no video to follow objects through", where=item.name))}
        if self._following is not None:
            answer, picture = self._following.answer(item, one.predictions[0])
            return {**entry, "answers": [answer], **({} if picture is None else {"picture": str(picture)})}
        entry["answers"] = self.predictor.answers(one.predictions)
        if self.request.pictures:
            entry["picture"] = str(self._draw(item, self.predictor.picture(one.record, one.predictions)))
        return entry

    def _draw(self, item: Item, picture: Any) -> Path:
        import cv2

        out = Path(self.request.out)
        out.mkdir(parents=True, exist_ok=True)
        target = out / self._free_name(f"{item.stem}.{self._label}", ".png")
        if not cv2.imwrite(str(target), picture[..., ::-1]):
            raise DataError("the picture cannot be written", where=str(target))
        return target

    def _film_name(self, video: str) -> str:
        return self._free_name(f"{Path(video).stem}.{self._label}", ".mp4")

    def _free_name(self, stem: str, ending: str) -> str:
        """Two inputs of one call may share a stem; pictures of an earlier call are replaced."""
        number = self._drawn[stem] + 1
        while (name := f"{stem}{'' if number == 1 else f'-{number}'}{ending}") in self._taken:
            number += 1
        self._drawn[stem] = number
        return name


def check_asked(predictor: Predictor, kind: Kind | None, texts: Mapping[str, str]) -> None:
    """Before anything is read: whether the model takes what the command line gives it, and is given what it takes."""
    placeholder: Mapping[str, Any] = {"image": b"-", "clip": Clip.even([b"-"])}
    pixels: dict[str, Any] = {} if kind is None else {kind: placeholder[kind]}
    where = f"run {predictor.run['name']} ({predictor.run['task_name']})"
    check_inputs({**pixels, **texts}, predictor.inputs, where)


def _no_use(value: str, what: str, allowed: str) -> ConfigError:
    return ConfigError(what, value=value, allowed=allowed, fix="leave it out")


def _predict_with_shipped_code(request: Request, project: Project, chosen: Named) -> int:
    """Fetch the model and let the code that it ships predict, in a process that cannot see this folder's code."""
    with tempfile.TemporaryDirectory() as temporary:
        model = shipped(project, chosen, Path(temporary), trust=request.trust)
        command = [*model.command("predict"), *arguments_of(request, label=str(chosen.uri))]
        with subprocess.Popen(command, env=model.environment()) as process:
            try:
                return process.wait()
            except KeyboardInterrupt:  # which a terminal sends to both: it ends its document
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(_PATIENCE_S)
                process.terminate()
                raise
