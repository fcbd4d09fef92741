"""What comes over HTTP, read into the inputs of a model, within limits.

A body is an image's (or a clip's) bytes, a multipart form with files and fields, or JSON with texts. Errors are
`Refusal`s: a status beside the parts of an error as all of this project tells it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from contracts.errors import ConfigError, DataError, SightlineError
from contracts.inputs import FPS, TEXT_INPUTS, Clip, Given
from pipeline.ingest.door.pixels import MAX_FRAMES

BODY_S = 60.0  # for a body to come in: who sends slower holds a place that others wait for
_DISCARD_S = 5.0
_FORM, _JSON, _FIELDS = "multipart/form-data", "application/json", "application/x-www-form-urlencoded"
# curl --data-binary says _FIELDS of anything.
_BYTES = ("image/", "video/", "application/octet-stream", _FIELDS)
_HOW = {
    "image": "the bytes of a JPEG or PNG file as the body (curl --data-binary @photo.jpg), or a file `image` of a form",
    "clip": "the bytes of a GIF, a WebP or a video as the body, or files `frame` of a form, in the order of time",
}


class Refusal(Exception):
    """An answer that is an error: its HTTP status, and what is told."""

    def __init__(self, status: int, error: SightlineError, retry_after_s: int | None = None):
        super().__init__(str(error))
        self.status, self.error, self.retry_after_s = status, error, retry_after_s


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One input of the model by parts, `name` being that of the file if it has one. Of a clip that is not decoded yet,
    `clip_file` is the file's bytes and `fps` what the client says of it."""

    given: Mapping[str, Given]
    name: str | None = None
    clip_file: bytes | None = None
    fps: float | None = None


@dataclass(frozen=True, kw_only=True)
class Body:
    """What one request asks: several inputs only where `is_form`."""

    asked: Sequence[Asked]
    is_form: bool


def how(name: str, inputs: Sequence[str]) -> str:
    """How one of the inputs of a model is sent, for descriptions and errors."""
    if name in _HOW:
        return _HOW[name]
    plain = f"?{name}=... in the address, or a field `{name}` of a form"
    return plain if {"image", "clip"} & set(inputs) else f'{plain}, or {{"{name}": ..}} as JSON'


async def read_body(request: Request, inputs: Sequence[str], max_bytes: int) -> Body:
    """The inputs of a request, none of them decoded, and what is missing or too much told.

    Args:
        inputs: the model's, such as ("image", "question").
        max_bytes: of the whole body.

    Raises:
        Refusal: 400 (missing, not taken, or not to be understood), 408, 413 or 415.
    """
    try:
        async with asyncio.timeout(BODY_S):
            body = await _read(request, inputs, max_bytes)
    except TimeoutError:
        error = DataError("the body did not come in time", value=f"{BODY_S:g} s", fix="send it again")
        raise Refusal(408, error) from None
    for asked in body.asked:
        _check(asked, inputs)
    return body


async def _read(request: Request, inputs: Sequence[str], max_bytes: int) -> Body:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    texts, fps = _texts(request.query_params.multi_items())
    media = next((name for name in ("image", "clip") if name in inputs), None)
    if kind == _FORM:
        return Body(asked=await _form(request, texts, fps, max_bytes), is_form=True)
    if kind and kind != _JSON and not kind.startswith(_BYTES):
        raise _wrong_kind("a body of a kind that is not read", kind, inputs)
    data = b"".join([chunk async for chunk in _limited(request, max_bytes)])
    if kind == _JSON:
        if media is not None:
            raise _wrong_kind("this model takes more than texts", kind, inputs)
        texts |= _json_texts(data)
    elif media is None and data:
        if kind != _FIELDS:
            raise _wrong_kind("this model takes texts alone", kind or f"{len(data)} bytes", inputs)
        texts |= _texts(parse_qsl(data.decode("utf-8", "replace"), keep_blank_values=True))[0]
    elif media == "clip" and data:
        return Body(asked=(Asked(given=texts, clip_file=data, fps=fps),), is_form=False)
    elif media == "image":
        return Body(asked=(Asked(given={**texts, **({"image": data} if data else {})}),), is_form=False)
    return Body(asked=(Asked(given=texts),), is_form=False)


def _wrong_kind(what: str, kind: str, inputs: Sequence[str]) -> Refusal:
    return Refusal(415, ConfigError(what, value=kind, where="Content-Type", allowed=_allowed(inputs)))


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body's parts as they come. One that announces too much is not read at all."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise _too_large(int(announced), max_bytes)
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(size, max_bytes)
        yield chunk


def _too_large(size: int, max_bytes: int) -> Refusal:
    error = DataError(
        "the body is too large",
        value=f"{size} bytes, or more",
        allowed=f"at most {max_bytes / 1e6:g} MB",
        fix="send a smaller file, or start the server with another --max-mb",
    )
    return Refusal(413, error)


async def _form(request: Request, texts: dict[str, Given], fps: float | None, max_bytes: int) -> list[Asked]:
    """The files of a form, each asked with all of its fields; all files `frame` together are one clip."""
    parser = MultiPartParser(
        request.headers, _closing(request, max_bytes), max_files=MAX_FRAMES, max_part_size=max_bytes
    )
    try:
        form = await parser.parse()
    except _Stopped as stopped:
        raise stopped.refusal from None
    except (MultiPartException, KeyError, ValueError) as error:
        why = getattr(error, "message", "") or repr(error)
        raise Refusal(400, DataError("the form cannot be read", value=why[:200], where="the body")) from error
    try:
        return await _of_form(form.multi_items(), texts, fps)
    finally:
        await form.close()


class _Stopped(MultiPartException):
    """By what is not the form's fault: of this error the parser closes the files that it began."""

    def __init__(self, refusal: Refusal):
        super().__init__(str(refusal))
        self.refusal = refusal


async def _closing(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in _limited(request, max_bytes):
            yield chunk
    except Refusal as refusal:
        raise _Stopped(refusal) from None


async def _of_form(
    items: Sequence[tuple[str, UploadFile | str]], texts: dict[str, Given], fps: float | None
) -> list[Asked]:
    files = [(name, value) for name, value in items if isinstance(value, UploadFile)]
    more, fps_field = _texts([(name, value) for name, value in items if isinstance(value, str)])
    texts, fps = {**texts, **more}, fps_field or fps
    asked, frames = [], []
    for name, file in files:
        data = await file.read()
        if name == "frame":
            frames.append(data)
        elif name == "image":
            asked.append(Asked(given={**texts, "image": data} if data else texts, name=file.filename))
        elif name == "clip":
            asked.append(Asked(given=texts, name=file.filename, clip_file=data, fps=fps))
        else:
            raise Refusal(400, ConfigError("no such file in a form", value=name, allowed="image, clip, frame"))
    if frames:
        asked.append(Asked(given={**texts, "clip": Clip.even(frames, fps or FPS)}))
    return asked or [Asked(given=texts)]


def _texts(pairs: Sequence[tuple[str, str]]) -> tuple[dict[str, Given], float | None]:
    """Texts by the name of the input, and `fps` if it is among them."""
    texts: dict[str, Given] = {}
    fps = None
    for name, value in pairs:
        if name == "fps":
            fps = _fps(value)
        elif name not in TEXT_INPUTS:
            raise Refusal(400, ConfigError("no such input", value=name, allowed=", ".join([*TEXT_INPUTS, "fps"])))
        elif name in texts:
            raise Refusal(400, ConfigError("an input is given twice", value=name))
        else:
            texts[name] = value
    return texts, fps


def _fps(value: str) -> float:
    try:
        fps = float(value)
    except ValueError:
        fps = 0.0
    if not 0.001 <= fps <= 1e6:
        raise Refusal(400, ConfigError("not a number of frames a second", value=value, where="fps"))
    return fps


def _json_texts(data: bytes) -> dict[str, Given]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, DataError("the body is no JSON", value=str(error)[:200])) from error
    if not isinstance(document, dict) or not all(isinstance(value, str) for value in document.values()):
        raise Refusal(400, DataError("the body is no object of texts", allowed='{"source": "ein Satz"}'))
    return _texts(list(document.items()))[0]


def _check(asked: Asked, inputs: Sequence[str]) -> None:
    """As `contracts.inputs.check_inputs`, in the words of HTTP."""
    has = {**asked.given, **({"clip": b"-"} if asked.clip_file else {})}
    for name in inputs:
        value: Any = has.get(name)
        if not (value.strip() if isinstance(value, str) else value):
            wanted = " and ".join(inputs)
            raise Refusal(400, ConfigError("an input is missing", value=name, allowed=wanted, fix=how(name, inputs)))
    for name in sorted(has.keys() - set(inputs)):
        error = ConfigError("this model does not take this input", value=name, allowed=" and ".join(inputs))
        raise Refusal(400, error)


def _allowed(inputs: Sequence[str]) -> str:
    return "; ".join(f"{name}: {how(name, inputs)}" for name in inputs)


async def discard(request: Request, max_bytes: int) -> None:
    """Read what is left of a body that is refused, up to `max_bytes` and `_DISCARD_S`, and forget it. Most clients
    send all of a body before they listen: they would see a connection that broke in place of the answer."""
    if request.headers.get("expect", "").lower() == "100-continue":  # this one listens
        return
    size = 0
    with contextlib.suppress(TimeoutError, ClientDisconnect, RuntimeError):  # RuntimeError: it was read
        async with asyncio.timeout(_DISCARD_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size > max_bytes:
                    return


def complete(asked: Asked) -> dict[str, Given]:
    """What is given, the clip decoded if it is a file. Slow: not for the thread that answers clients.

    Raises:
        DataError: it cannot be decoded.
    """
    if asked.clip_file is None:
        return dict(asked.given)
    from pipeline.predicting.clips import read_clip

    with tempfile.NamedTemporaryFile(prefix="sightline-clip-") as file:
        file.write(asked.clip_file)
        file.flush()
        try:
            return {**asked.given, "clip": read_clip(Path(file.name), asked.fps)}
        except DataError as error:  # which names a file of this machine
            raise DataError(error.what, where=asked.name or "the body", allowed=error.allowed) from error
