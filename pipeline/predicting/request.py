"""What the command line of `sightline predict` says, and what of it goes together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contracts.errors import ConfigError
from pipeline.predicting.given import STDIN

OUT = "predictions"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line says.

    Attributes:
        images: files, folders, patterns, or `-`; with `cluster` tars.
        texts: by the name of the input, such as `question`.
        out: folder of the pictures; with `cluster` of the answers, or a url.
        label: the model's name, where `model` is a temporary file.
        fps: of clips; None: what their files say.
        every: of a video's frames each so-many-th, where the model takes images.
        paths: a file with a path a line, or `-`.
        json: a file of JSON lines, or `-`; None: one document on stdout.
        resume: go on after the lines that the file has.
        score: least score of what is answered and drawn; None: the task's.
        batch: inputs at a time; None: as many as suit the machine.
        cluster: each tar by a Ray task.
        track: follow objects through the frames of videos.
    """

    model: str
    images: Sequence[str]
    texts: Mapping[str, str]
    out: str = OUT
    trust: bool = False
    label: str | None = None
    fps: float | None = None
    every: int = 1
    paths: str | None = None
    json: str | None = None
    resume: bool = False
    score: float | None = None
    batch: int | None = None
    pictures: bool = True
    cluster: bool = False
    track: bool = False


def check_options(request: Request) -> None:
    """Refuse options that contradict each other.

    Raises:
        ConfigError: the first that do.
    """
    if request.images.count(STDIN) + (request.paths == STDIN) > 1:
        raise ConfigError("standard input can be read once", value=STDIN, fix="name it once, as an image or as --list")
    if request.resume and request.json in (None, STDIN):
        raise ConfigError("there is no file to go on with", value="--resume", fix="--json FILE --resume")
    if request.track and request.resume:
        raise ConfigError("a track is not gone on with", value="--track --resume", fix="leave one out")
    if not request.cluster:
        return
    alone = {
        "--list": request.paths, "--json": request.json, "--fps": request.fps, "--resume": request.resume,
        "--every": request.every != 1, STDIN: STDIN in request.images,
        "--track": request.track,
    }  # fmt: skip
    for name, value in alone.items():
        if value:
            allowed = "tars, --out, --score, --batch and the texts; what is done is always left as it is"
            raise ConfigError("this does not go with --cluster", value=name, allowed=allowed, fix="leave it out")
    if not request.images:
        raise ConfigError(
            "tars are missing", where="--cluster", fix="name tar files, their folder, or s3://bucket/prefix/"
        )


def arguments_of(request: Request, *, label: str) -> list[str]:
    """The command line again, without the model, for the code that a registered model ships: that may be older, so only
    what was asked for is named."""
    arguments = [*request.images, "--out", request.out, "--label", label]
    valued = {
        "fps": request.fps, "every": None if request.every == 1 else request.every, "list": request.paths,
        "json": request.json, "score": request.score, "batch": request.batch,
    }  # fmt: skip
    for name, value in valued.items():
        arguments += [] if value is None else [f"--{name}", str(value)]
    flags = {"--resume": request.resume, "--no-pictures": not request.pictures, "--cluster": request.cluster}
    flags |= {"--track": request.track}
    arguments += [flag for flag, is_set in flags.items() if is_set]
    return arguments + [f"--{name}={text}" for name, text in request.texts.items()]
