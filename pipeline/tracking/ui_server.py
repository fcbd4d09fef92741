"""The server that `sightline ui` starts: MLflow's, as a training's pages and nothing else.

`mlflow server` opens its pages for users of language models: an assistant that runs commands on this machine takes a
third of the window, and experiments open where traces would be. There is no setting against either. Here the pages
are told in the browser's own storage, before they start, and the assistant's part of the server answers to nobody.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipeline.tracking.connection import sqlite_file
from pipeline.tracking.moved import ARTIFACTS, DATABASE

ASSISTANT = "/mlflow/assistant/"  # of the server's addresses
# As MLflow's pages keep what a person chose; what was chosen here before stays.
_FIRST = """<style>[data-assistant-ui]{display:none!important}</style><script>
for (const [key, value] of [
  ["mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true"], ["mlflow.assistant.panelOpen_v1", "false"],
  ["mlflow.settings.telemetry.enabled_v1", "false"], ["mlflow.telemetry.info.alert.dismissed_v1", "true"],
]) localStorage.setItem(key, value);
if (localStorage.getItem("mlflow.workflowType_v1") === null)
  localStorage.setItem("mlflow.workflowType_v1", '"machine_learning"');
</script>"""


def application() -> Any:
    """MLflow's application behind one that answers for its first page and the assistant."""
    import mlflow.server
    from mlflow.server.fastapi_app import app

    index = Path(mlflow.server.__file__).parent / mlflow.server.REL_STATIC_DIR / "index.html"
    page = index.read_text("utf-8").replace("<head>", f"<head>{_FIRST}", 1).encode()

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        if path == "/" and scope["method"] == "GET":
            await _send(send, 200, page, b"text/html; charset=utf-8")
        elif ASSISTANT in path:
            await _send(send, 404, b"the assistant is switched off", b"text/plain")
        else:
            await app(scope, receive, send)

    return answer


async def _send(send: Any, status: int, body: bytes, kind: bytes) -> None:
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),  # another server on this port shows another page
        (b"x-frame-options", b"SAMEORIGIN"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main(host: str, port: int) -> None:
    """Serve the store that MLFLOW_BACKEND_STORE_URI names until told to end."""
    from mlflow.server import constants

    store = os.environ["MLFLOW_BACKEND_STORE_URI"]
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: store,
        constants.REGISTRY_STORE_URI_ENV_VAR: store,
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: str((sqlite_file(store) or Path(DATABASE)).with_name(ARTIFACTS)),
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    import uvicorn  # MLflow's own server; it reads the environment when it is imported

    uvicorn.run(application(), host=host, port=port, log_level="warning", access_log=False)
