"""What OpenAPI, and so `/docs`, says of `POST /predict`, whose body is read as it comes and not by FastAPI."""

from __future__ import annotations

from typing import Any

from contracts.inputs import TEXT_INPUTS

_FILE = {"type": "string", "format": "binary"}
_TEXT = {"type": "string"}
_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "object", "properties": dict.fromkeys(
        ("what", "value", "where", "allowed", "fix"), _TEXT), "required": ["what"]}},
}  # fmt: skip
_ANSWERS = {"type": "array", "items": {"type": "object"}, "description": "one for each item, such as a question"}
_ANSWERED = {
    "type": "object",
    "properties": {
        "model": _TEXT,
        "answers": _ANSWERS,
        "predictions": {
            "type": "array",
            "description": "of a form: one for each file, `answers` or `error`",
            "items": {"type": "object", "properties": {"image": _TEXT, "answers": _ANSWERS, **_ERROR["properties"]}},  # type: ignore[dict-item]
        },
    },
}


def _refused(what: str) -> dict[str, Any]:
    return {"description": what, "content": {"application/json": {"schema": _ERROR}}}


_QUERY = [
    {"name": name, "in": "query", "description": text.says, "schema": _TEXT} for name, text in TEXT_INPUTS.items()
]
PREDICT: dict[str, Any] = {
    "parameters": [
        *_QUERY,
        {"name": "fps", "in": "query", "description": "frames a second of a clip", "schema": {"type": "number"}},
    ],
    "requestBody": {
        "content": {
            "image/*": {"schema": _FILE},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": {"type": "array", "items": _FILE},
                        "clip": {"type": "array", "items": _FILE},
                        "frame": {"type": "array", "items": _FILE},
                        **dict.fromkeys(TEXT_INPUTS, _TEXT),
                    },
                }
            },
            "application/json": {"schema": {"type": "object", "properties": dict.fromkeys(TEXT_INPUTS, _TEXT)}},
        }
    },
    "responses": {"200": {"description": "answered", "content": {"application/json": {"schema": _ANSWERED}}}},
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    400: _refused("an input is missing, is not taken by this model, or cannot be understood"),
    413: _refused("the body, or the number of images, is too large"),
    415: _refused("a body of a kind that this model is not asked by"),
    422: _refused("an image or a clip that cannot be decoded"),
    503: _refused("the model is not loaded yet, or too many are waiting: see Retry-After"),
}
