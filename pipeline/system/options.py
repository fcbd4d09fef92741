"""Arguments and options of commands: those of several commands, and the many of `score`. Imports nothing but typer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

Dataset = Annotated[str, Argument(metavar="DATASET", help="a data set of params.yaml", show_default=False)]
Run = Annotated[str, Argument(metavar="RUN", help="a run of params.yaml", show_default=False)]
Model = Annotated[
    str,
    Argument(
        help="a run, a registered model (name, name@champion, name/version, models:/.., runs:/..) or a .ckpt file",
        show_default=False,
    ),
]
Trust = Annotated[bool, Option("--trust", help="run the code of a model that this project did not register")]

# Of `sightline score`.
Truth = Annotated[Path | None, Option(metavar="PATH", help="annotation file or folder")]
Predictions = Annotated[Path | None, Option(metavar="PATH", help="result file or folder")]
Questions = Annotated[Path | None, Option(metavar="PATH", help="question file (vqa only)")]
ScoreOut = Annotated[Path | None, Option("--out", metavar="FILE", help="write the document there as well")]
Bootstrap = Annotated[int, Option(metavar="N", help="add 95 % intervals from N resamples, such as 1000")]
Iou = Annotated[
    float | None, Option(metavar="X", help="least IoU of a hit; 0.5, the kit's, if not given (voc-boxes only)")
]
IgnoreIndex = Annotated[
    str | None,
    Option(metavar="N", help="label of the truth that does not count, or `none`; default 255 (segmentation only)"),
]
NumClasses = Annotated[int | None, Option(metavar="K", help="labels are 0 to K - 1 (segmentation only)")]
ClassNames = Annotated[
    str | None,
    Option(metavar="NAMES", help="of labels 0, 1, ..: a,b,c or a file with a name a line (segmentation only)"),
]
FirstWord = Annotated[str | None, Option(metavar="T,P", help="words count from 0 or 1 (alignment only)")]
NoJava = Annotated[bool, Option("--no-java", help="leave METEOR and SPICE out (captions only)")]
