"""`sightline`: every command of this project, each written in one of the files of `commands/`."""

from __future__ import annotations

import sys

from pipeline.commands import data, models, project
from pipeline.commands._app import app

__all__ = ["app", "data", "main", "models", "project"]  # importing a file adds its commands


def main() -> None:
    """Run the command that was asked for. Typer looks at the arguments of all of them first, which takes a tenth of
    `check`: where one is named, it gets no other."""
    named = [command for command in app.registered_commands if command.name in sys.argv[1:2]]
    app.registered_commands = named or app.registered_commands
    app(prog_name="sightline")


if __name__ == "__main__":
    main()
