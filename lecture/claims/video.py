"""Video: what the order of frames tells (rows S21 to S23 of the lecture)."""

from __future__ import annotations

from lightning_modules.metrics.frame_level import DISTANCES
from lightning_modules.reports._plots import Plot
from lightning_modules.tasks.action import SHARES
from pipeline.measuring.claims import Claim, Results, Row

TITLE = "Video: action prediction, classes of frames, captions"
INTRODUCTION = (
    "Shapes that move, grow, turn and vanish, in frames of 32 pixels. The eight classes come in four pairs, and a clip "
    "played backwards is a clip of its partner with the very same frames: whoever does not know the order of the "
    "frames cannot tell the two apart, and is right in half of the clips at best. The controls have the same CNN and "
    "as many hidden units; they count their steps so that no order is left, frames by themselves alike and of the "
    "means so far the last one alone."
)
SEEDS = ("a", "b", "c")
CHANCE, ORDERLESS = 1 / 8, 1 / 2
_READERS = {
    "frame": "each frame by itself",
    "pool": "mean of the frames",
    "shuffled": "LSTM, frames shuffled",
    "lstm": "LSTM (LRCN)",
}
_CONTROL = "1/2 without the order of frames"


def claims(results: Results) -> list[Claim]:
    return [_order(results), _over_time(results), _after_change(results), _told(results)]


def _runs(name: str) -> list[str]:
    return [f"video_{name}_{seed}" for seed in SEEDS]


def _order(results: Results) -> Claim:
    rows = {
        reader: results.row(title, _runs(f"action_{reader}"), "top1", _CONTROL) for reader, title in _READERS.items()
    }
    lstm = rows["lstm"].value
    best = max(row.value for reader, row in rows.items() if reader != "lstm")
    return Claim(
        name="order-of-frames",
        says="An action is told by the order of its frames, which an LSTM over a CNN reads",
        slides=("S21", "S01"),
        holds=lstm > 0.9 and best < ORDERLESS + 0.08,
        because=f"The LSTM is right in {lstm:.0%} of the clips. With the same frames in no order, the best of the "
        f"controls is right in {best:.0%}, where one half is the most that can be reached.",
        figure=Plot(
            name="order_of_frames", kind="bar", columns=("what reads the frames", "accuracy"),
            rows=[(row.what, row.value) for row in rows.values()] + [("most frequent class", CHANCE)],
            x="what reads the frames", y="accuracy", title="Clips whose action is named (median of 3 seeds)",
        ),
        rows=list(rows.values()),
    )  # fmt: skip


def _over_time(results: Results) -> Claim:
    """The same runs after each tenth of a clip."""
    rows: list[Row] = []
    points = []
    for reader in ("lstm", "frame"):
        for share in SHARES:
            name = f"top1/observed {share:g}"
            row = results.row(f"{_READERS[reader]}, after {share:.0%}", _runs(f"action_{reader}"), name, _CONTROL)
            points.append((_READERS[reader], share, row.value))
            rows.append(row)
    lstm = [value for title, _, value in points if title == _READERS["lstm"]]
    frame = [value for title, _, value in points if title == _READERS["frame"]]
    half = lstm[len(lstm) // 2 - 1]
    return Claim(
        name="action-over-time",
        says="How well an action is predicted grows with what is seen of it, for what reads frames in order",
        slides=("S21",),
        holds=half > lstm[0] + 0.1 and lstm[-1] > lstm[0] + 0.25 and frame[-1] < frame[0] + 0.1,
        because=f"After a tenth of the frames, which is one frame, the LSTM is right in {lstm[0]:.0%} of the clips, "
        f"after half of them in {half:.0%}, after all in {lstm[-1]:.0%}. What looks at each frame by itself begins at "
        f"{frame[0]:.0%} and ends at {frame[-1]:.0%}.",
        note="A first frame says something, as what grows begins small and what vanishes begins bright; only the LSTM "
        "knows that it is the first.",
        figure=Plot(
            name="action_over_time", kind="curve", columns=("what reads", "share of the clip seen", "accuracy"),
            rows=points, x="share of the clip seen", y="accuracy", series="what reads",
            title="Accuracy while the clip goes on (median of 3 seeds)",
        ),
        rows=rows,
    )  # fmt: skip


def _after_change(results: Results) -> Claim:
    """Frame by frame, over videos of several actions."""
    names = {"lstm": "LSTM", "frame": "each frame by itself"}
    accuracy = {
        kind: results.row(f"{title}, all frames", _runs(f"frames_{kind}"), "frame_accuracy", _CONTROL)
        for kind, title in names.items()
    }
    precision = [results.row(f"{title}, mAP", _runs(f"frames_{kind}"), "mAP") for kind, title in names.items()]
    rows, points = [], []
    for kind, title in names.items():
        for distance in range(DISTANCES - 2):
            row = results.row(f"{title}, error {distance} after", _runs(f"frames_{kind}"), f"error/after {distance}")
            points.append((title, distance, row.value))
            rows.append(row)
    errors = [value for title, _, value in points if title == names["lstm"]]
    others = [value for title, _, value in points if title == names["frame"]]
    return Claim(
        name="errors-after-a-change",
        says="An LSTM that labels every frame needs a few to see what has begun; single frames never tell",
        slides=("S22", "S01"),
        holds=accuracy["lstm"].value > accuracy["frame"].value + 0.15 and min(errors[2:]) < errors[0] - 0.3
        and min(others) > ORDERLESS - 0.08,
        because=f"At the first frame of a new action the LSTM errs in {errors[0]:.0%} of the cases, four frames later "
        f"in {errors[4]:.0%}; the CNN on single frames in {others[0]:.0%} and {others[4]:.0%}. Of all frames the one "
        f"names {accuracy['lstm'].value:.0%}, the other {accuracy['frame'].value:.0%}.",
        figure=Plot(
            name="errors_after_a_change", kind="curve", columns=("what reads", "frames after a change", "error"),
            rows=points, x="frames after a change", y="error", series="what reads",
            title="Errors after a new action has begun (median of 3 seeds)",
        ),
        rows=[*accuracy.values(), *precision, *rows],
    )  # fmt: skip


def _told(results: Results) -> Claim:
    """Two actions one after the other, told in a sentence with "then"."""
    runs = {"S2VT": _runs("captions_s2vt"), "mean of the frames": _runs("captions_pool")}
    score = {
        what: results.row(f"{what}: CIDEr", names, "CIDEr", "one caption for all clips") for what, names in runs.items()
    }
    order = {
        what: results.row(f"{what}: told in the right order", names, "then_order", "1/2 without the order of frames")
        for what, names in runs.items()
    }
    read, pooled = (order[what].value for what in runs)
    constant = score["S2VT"].measured[0].constant or 0.0
    return Claim(
        name="order-in-a-caption",
        says="A video becomes a sentence: two LSTMs read its frames, write its words, and know what came first",
        slides=("S23",),
        holds=score["S2VT"].value > constant and read > pooled + 0.1,
        because=f"S2VT tells both actions in the right order in {read:.0%} of the clips, the mean of their frames "
        f"with the same layers in {pooled:.0%}. CIDEr is {score['S2VT'].value:.2f} and "
        f"{score['mean of the frames'].value:.2f}, {constant:.2f} with one caption for all.",
        figure=Plot(
            name="order_in_a_caption", kind="bar", columns=("what reads the frames", "right order"),
            rows=[(what, row.value) for what, row in order.items()],
            x="what reads the frames", y="right order",
            title="Captions that tell both actions in their order (median of 3 seeds)",
        ),
        rows=[*order.values(), *score.values()],
        note="A caption without \"then\" counts as wrong. The CNN is that of the actions' LSTM, for both.",
    )  # fmt: skip
