"""The arguments and options of `sightline predict`."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

Images = Annotated[
    list[str] | None,
    Argument(
        metavar="IMAGE...",
        help="images, folders of them, patterns in quotes, videos (each frame is an image) or - (an image on stdin); "
        "where the model takes clips, folders of frames, animated images or videos",
        show_default=False,
    ),
]
QuestionText = Annotated[str | None, Option(help="the question to answer, where the model takes one")]
Text = Annotated[str | None, Option(help="the text to read, where the model takes one")]
Source = Annotated[str | None, Option(help="the sentence to translate, where the model takes one")]
Candidates = Annotated[str | None, Option(help='answers to choose from: "red | dark blue | green"')]
Boxes = Annotated[str | None, Option(help='to point at, in pixels: "x1,y1,x2,y2 | x1,y1,x2,y2 .."')]
Fps = Annotated[
    float | None, Option(min=0.001, help="frames a second of clips; what their files say, else 25, if not given")
]
Every = Annotated[int, Option(min=1, metavar="N", help="of videos each N-th frame, where the model takes images")]
Paths = Annotated[str | None, Option("--list", metavar="FILE", help="more inputs, a path a line; - is stdin")]
Score = Annotated[
    float | None,
    Option(min=0, max=1, help="least score of what is answered and drawn; the task's picture_score, if not given"),
]
Batch = Annotated[int | None, Option(min=1, metavar="N", help="inputs at a time; 16 on a GPU, else 4, if not given")]
JsonFile = Annotated[
    str | None, Option("--json", metavar="FILE", help="JSON lines, one an input, as they are made; - is stdout")
]
Track = Annotated[
    bool, Option("--track", help="number the objects of videos through their frames; draws each video anew")
]
Resume = Annotated[bool, Option("--resume", help="go on after the lines that --json FILE has")]
Out = Annotated[str, Option(metavar="FOLDER", help="of the pictures; with --cluster of the answers")]
NoPictures = Annotated[bool, Option("--no-pictures", help="answers alone")]
OnCluster = Annotated[
    bool, Option("--cluster", help="inputs are WebDataset tars: each is a Ray task and gets a file of JSON lines")
]
