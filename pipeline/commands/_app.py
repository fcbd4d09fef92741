"""What every command stands on.

What a command does is imported when it is asked for, so that `--help` is quick. Exit codes: 0; 1 where something was
looked for and found wanting; 2 for an error that the user can mend, told in full without a traceback; 130 when
interrupted.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from pipeline.system.guard import UMASK_HELP, ended_plainly, guard_process

# What a start makes stays: to look through it for garbage, each 700 new objects, takes a seventh of `check`.
gc.set_threshold(50_000)
# pydantic would read the metadata of every installed package, to find plugins that look on.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
_PIPELINE = Path(__file__).resolve().parents[1]


def names(folder: str) -> str:
    """Of parts, for a help text: files, so that nothing is imported to list them."""
    return ", ".join(sorted(path.stem for path in (_PIPELINE / folder).glob("[!_]*.py")))


app = typer.Typer(
    epilog=UMASK_HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich alone would take longer than all of --help
    pretty_exceptions_enable=False,  # they show values, secrets too
    # Without the default, typer asks pydantic whether "no --help" is a truth, which takes as long as all else.
    context_settings={"help_option_names": ["-h", "--help"], "default_map": {"help": False}},
)


def _tell_version(asked: bool) -> None:
    if asked:
        from contracts import __version__

        print(f"sightline {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, Option("--version", callback=_tell_version, is_eager=True, help="Tell it and exit.")
    ] = False,
) -> None:
    """From raw vision-and-language data to registered models. Run it in a project's folder."""


def command(name: str, **settings: Any) -> Callable[[Callable[..., int | None]], Callable[..., None]]:
    """Make a function a command: guarded before it does anything, and ended as the head of this file says."""

    def register(work: Callable[..., int | None]) -> Callable[..., None]:
        @functools.wraps(work)
        def framed(*arguments: Any, **keywords: Any) -> None:
            with ended_plainly():
                guard_process()
                code = work(*arguments, **keywords)
            sys.exit(code or 0)

        return app.command(name, **settings)(framed)

    return register
