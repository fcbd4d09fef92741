"""Open the MLflow UI on this project's runs: `python -m pipeline.ui`."""

from __future__ import annotations

import argparse
import os
import sys

from contracts.errors import SightlineError
from pipeline.guard import guard_process
from pipeline.params import TrackingConfig, load_params
from pipeline.project import Project
from pipeline.tracking import tracking_uri


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--host", default="127.0.0.1")
    arguments = parser.parse_args()
    try:
        guard_process()
        project = Project.here()
        uri = tracking_uri(load_params(project.root).section(TrackingConfig, "tracking"), project.store_root)
    except SightlineError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if uri.startswith(("http://", "https://")):
        print(f"runs are recorded by the server at {uri}: open that address")
        return
    print(f"MLflow UI on http://{arguments.host}:{arguments.port}", flush=True)
    command = ["mlflow", "server", "--backend-store-uri", uri, "--host", arguments.host, "--port", str(arguments.port)]
    os.execv(sys.executable, [sys.executable, "-m", *command])  # signals go to the server itself


if __name__ == "__main__":
    main()
