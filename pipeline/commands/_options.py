"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated, Literal

from typer import Argument, Option

Dataset = Annotated[str, Argument(metavar="DATASET", help="a data set of params.yaml", show_default=False)]
Job = Annotated[str, Argument(metavar="JOB", help="as `sightline submit` printed it", show_default=False)]
Address = Annotated[
    str | None, Option(help="of the cluster's dashboard; default: RAY_API_SERVER_ADDRESS, or this machine's")
]
Run = Annotated[str, Argument(metavar="RUN", help="a run of params.yaml", show_default=False)]
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
Trust = Annotated[bool, Option("--trust", help="run the code of a model that this project did not register")]
Label = Annotated[str | None, Option(hidden=True)]  # the model's name, where the argument is a temporary file
