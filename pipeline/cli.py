"""`sightline`: every command of this project, each written in one of the files of `commands/`."""

from __future__ import annotations

from pipeline.commands import data, models, project
from pipeline.commands._app import app

__all__ = ["app", "data", "models", "project"]  # importing a file adds its commands

if __name__ == "__main__":
    app(prog_name="sightline")
