"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated, Literal

from typer import Argument, Option

Model = Annotated[
    str,
    Argument(
        help="a run, a registered model (name, name@champion, name/version, models:/.., runs:/..) or a .ckpt file",
        show_default=False,
    ),
]
Split = Annotated[
    Literal["train", "val", "test"] | None,
    Option(help="test where the data set has one, else val, if it is not given", show_default=False),
]
Dataset = Annotated[str, Argument(metavar="DATASET", help="a data set of params.yaml", show_default=False)]
Run = Annotated[str, Argument(metavar="RUN", help="a run of params.yaml", show_default=False)]
