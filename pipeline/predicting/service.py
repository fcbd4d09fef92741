"""The HTTP interface of one model: `POST /predict`, `GET /health`, `GET /`, and FastAPI's `/docs`."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import os
import re
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from contracts import __version__
from contracts.errors import ConfigError, DataError, SightlineError
from contracts.inputs import TEXT_INPUTS
from contracts.redact import redact
from pipeline.predicting.batching import Answers, Batcher
from pipeline.predicting.bodies import Asked, Body, Refusal, complete, discard, how, read_body
from pipeline.predicting.openapi import PREDICT, RESPONSES
from pipeline.system.disk import file_sha256

if TYPE_CHECKING:
    from contracts.records import Record
    from pipeline.training.predictor import Predictor

# So many full batches, and so many inputs at least, are taken at a time; who comes then is told to come again.
_BATCHES, _LEAST = 8, 64
_RETRY_S = 1
_EXAMPLES = {"question": "what color is it?", "boxes": "10,20,50,60 | 70,5,90,30"}
_VERSION = re.compile(r"models:/[^/@]+/(\d+)")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is taken at once.

    Attributes:
        max_bytes: of a request's body.
        batch: records that the model sees at once, at most.
        wait_s: how long the first record of a batch waits for others.
    """

    max_bytes: int = 20_000_000
    batch: int = 8
    wait_s: float = 0.005

    @property
    def places(self) -> int:
        """Inputs that are read, waiting or computed at a time."""
        return max(_LEAST, self.batch * _BATCHES)


class Service:
    """A model, from when it is asked for until it is loaded and then; and what is waiting for it."""

    def __init__(self, label: str, checkpoint: Path, limits: Limits, load: Callable[[Path], Predictor] | None = None):
        self.label, self.checkpoint, self.limits = label, checkpoint, limits
        self.sha256 = ""
        self.failure: Exception | None = None  # of loading
        self.predictor: Predictor | None = None
        self.batcher: Batcher | None = None
        self.taken = 0  # of `limits.places`; the loop's thread alone changes it
        self._load = load
        # Files are decoded beside the model, which decodes nothing that nobody has proved to be an image.
        self._decoding = ThreadPoolExecutor(os.cpu_count() or 1, "decode")

    def load(self) -> None:
        """Read the checkpoint; from then on the service is ready."""
        from pipeline.training.predictor import load_predictor

        self.sha256 = file_sha256(self.checkpoint)
        predictor = (self._load or load_predictor)(self.checkpoint)
        self.batcher = Batcher(lambda records: _answers(predictor, records), self.limits.batch, self.limits.wait_s)
        self.predictor = predictor

    def close(self) -> None:
        """Answer what waits, then end the threads."""
        self._decoding.shutdown()
        if self.batcher is not None:
            self.batcher.close()

    def take(self, places: int) -> None:
        """Raises:
        Refusal: 503, they are not free; 413, there are not so many.
        """
        if places > self.limits.places:
            allowed = f"at most {self.limits.places}"
            raise Refusal(413, DataError("too many images in one request", value=places, allowed=allowed))
        if self.taken + places > self.limits.places:
            error = DataError("too many requests are waiting", value=self.taken, fix="ask again in a second")
            raise Refusal(503, error, _RETRY_S)
        self.taken += places

    async def answer(self, asked: Asked) -> Answers:
        """Raises:
        DataError: an image or a clip cannot be decoded.
        ConfigError: a text is not what it must be, such as boxes.
        """
        assert self.predictor is not None and self.batcher is not None
        predictor, loop = self.predictor, asyncio.get_running_loop()
        record = await loop.run_in_executor(self._decoding, lambda: predictor.record(complete(asked)))
        return await asyncio.wrap_future(self.batcher.submit(record))


def _answers(predictor: Predictor, records: Sequence[Record]) -> list[Answers]:
    return [predictor.answers(predictions) for predictions in predictor.predict_all(records)]


def application(service: Service, address: str, loaded: Callable[[], None] = lambda: None) -> FastAPI:
    """The ASGI application of a service, which loads the model when it starts.

    Args:
        address: `http://host:port`, for the examples.
        loaded: called when the model is there, or `service.failure`.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load(service, loaded))
        yield
        await loading
        await asyncio.to_thread(service.close)

    app = FastAPI(title=f"Sightline: {service.label}", version=__version__, lifespan=lifespan, redoc_url=None)

    @app.get("/", summary="What this model is, and how it is asked")
    async def describe() -> JSONResponse:
        return JSONResponse(describe_service(service, address))

    @app.get("/health", summary="200 when the model is loaded, 503 before", responses=RESPONSES)
    async def health() -> JSONResponse:
        ready = service.predictor is not None
        batcher = service.batcher
        counts = {"answered": batcher.num_records, "batches": batcher.num_batches} if batcher is not None else {}
        status = {"status": "ready" if ready else "loading", "waiting": service.taken, **counts}
        return JSONResponse(status, 200 if ready else 503, None if ready else {"Retry-After": str(_RETRY_S)})

    @app.post("/predict", summary="Ask the model", openapi_extra=PREDICT, responses=RESPONSES)
    async def predict(request: Request) -> JSONResponse:
        return await _predict(service, request)

    @app.exception_handler(HTTPException)
    async def told(request: Request, error: HTTPException) -> JSONResponse:
        allowed = "POST /predict, GET /health, GET /, GET /docs"
        what = {404: "no such address", 405: "not by this method"}.get(error.status_code, str(error.detail))
        told = ConfigError(what, value=f"{request.method} {request.url.path}"[:200], allowed=allowed)
        return _refused(Refusal(error.status_code, told))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:  # uvicorn logs it
        return _refused(Refusal(500, SightlineError("the server failed", fix="its log says more")))

    return app


async def _load(service: Service, loaded: Callable[[], None]) -> None:
    try:
        await asyncio.to_thread(service.load)
    except Exception as error:
        service.failure = error
    loaded()


async def _predict(service: Service, request: Request) -> JSONResponse:
    taken = 0
    try:
        if service.predictor is None:
            raise Refusal(503, ConfigError("the model is not loaded yet", fix="ask again in a second"), _RETRY_S)
        service.take(1)  # before the body is read: what waits in memory is limited, too
        taken = 1
        body = await read_body(request, service.predictor.inputs, service.limits.max_bytes)
        service.take(len(body.asked) - 1)
        taken = len(body.asked)
        found = await asyncio.gather(*map(service.answer, body.asked), return_exceptions=True)
        return JSONResponse({"model": service.label, **_document(body, found)})
    except Refusal as refusal:
        await discard(request, 4 * service.limits.max_bytes)
        return _refused(refusal, service)
    finally:
        service.taken -= taken


def _document(body: Body, found: Sequence[Answers | BaseException]) -> dict[str, Any]:
    """What is answered. Of a form, an image that cannot be read stands there with its error, beside the others.

    Raises:
        Refusal: nothing can be answered.
    """
    refusals = [_refusal(result) for result in found if isinstance(result, BaseException)]
    if len(refusals) == len(found):
        raise refusals[0]
    if not body.is_form:
        return {"answers": found[0]}
    predictions = []
    for asked, result in zip(body.asked, found, strict=True):
        told = {"error": _told(_refusal(result).error)} if isinstance(result, BaseException) else {"answers": result}
        predictions.append({**({} if asked.name is None else {"image": asked.name}), **told})
    return {"predictions": predictions}


def _refusal(error: BaseException) -> Refusal:
    """What this error is for a client: 422 for what cannot be read, 400 for what is asked wrongly, else 500 without
    a word of what went on inside, which the server's log has."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, SightlineError):
        return Refusal(400 if isinstance(error, ConfigError) else 422, error)
    print(redact("".join(traceback.format_exception(error))), end="", file=sys.stderr, flush=True)
    return Refusal(500, SightlineError("the model failed at this input", fix="the server's log says more"))


def _told(error: SightlineError) -> dict[str, str]:
    """An error by its parts, those that it has."""
    first = str(error).partition("\n")[0]
    value = first.removeprefix(f"{error.what}: ") if first != error.what else ""
    with contextlib.suppress(ValueError, SyntaxError):  # what is shown in quotes in a text is a text in JSON
        value = str(ast.literal_eval(value))
    parts = {"what": error.what, "value": value, "where": error.where, "allowed": error.allowed, "fix": error.fix}
    return {name: part for name, part in parts.items() if part}


def _refused(refusal: Refusal, service: Service | None = None) -> JSONResponse:
    headers = {} if refusal.retry_after_s is None else {"Retry-After": str(refusal.retry_after_s)}
    if service is not None and refusal.status != 503:
        print(f"{refusal.status} POST /predict: {refusal.error.what}", file=sys.stderr, flush=True)
    if refusal.status in (408, 413):  # the rest of the body is not read
        headers["Connection"] = "close"
    return JSONResponse({"error": _told(refusal.error)}, refusal.status, headers)


def describe_service(service: Service, address: str) -> dict[str, Any]:
    """What `GET /` answers: JSON values; before the model is loaded only what is known then."""
    version = _VERSION.fullmatch(service.label)
    limits = service.limits
    document: dict[str, Any] = {"model": service.label, "version": version and version[1], "sightline": __version__}
    if (predictor := service.predictor) is None:
        return {**document, "status": "loading"}
    return {
        **document,
        "status": "ready",
        "run": predictor.run["name"],
        "task": predictor.run["task_name"],
        "network": predictor.run["model_name"],
        "inputs": {name: how(name, predictor.inputs) for name in predictor.inputs},
        "classes": list(predictor.module.task.data.classes),
        "checkpoint_sha256": service.sha256,
        "limits": {"max_mb": limits.max_bytes / 1e6, "batch": limits.batch, "wait_ms": 1000 * limits.wait_s,
                   "inputs_at_once": limits.places},
        "example": example(predictor.inputs, address),
    }  # fmt: skip


def example(inputs: Sequence[str], address: str) -> str:
    """A curl command that asks a model with these inputs."""
    texts = {name: _EXAMPLES.get(name, TEXT_INPUTS[name].says) for name in inputs if name in TEXT_INPUTS}
    file = next((file for name, file in (("image", "photo.jpg"), ("clip", "clip.mp4")) if name in inputs), None)
    if file is None:
        return f"curl {address}/predict -H 'Content-Type: application/json' -d '{json.dumps(texts)}'"
    query = f"?{urlencode(texts)}" if texts else ""
    return f"curl --data-binary @{file} '{address}/predict{query}'"
