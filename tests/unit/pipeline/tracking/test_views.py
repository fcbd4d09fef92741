"""The view that MLflow's pages open with, as they keep it; `tests/browser` opens it."""

from __future__ import annotations

from pipeline.tracking.views import Content, _pictures, address, view

CONTENT = Content(
    metric="val/overall",
    descending=True,
    metrics=("epoch", "train/answer", "train/loss", "val/answer", "val/loss", "val/overall", "val/per/yes or no"),
    pictures=("val pictures/a", "val pictures/b"),
    steps=(0, 150, 300),
    params=("train.optimizer.lr",),
)


def test_the_list_shows_metric_interval_and_champion_best_first() -> None:
    state = view(CONTENT)
    shown = ["metrics.`val/overall`", "tags.`interval`", "tags.`champion`", "params.`train.optimizer.lr`"]
    assert state["selectedColumns"] == shown == state["columnOrder"][3:7], "params would stand before tags"
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`val/overall`", False)
    assert view(Content(metric="val/loss", descending=False, metrics=()))["orderByAsc"] is True


def test_metric_then_losses_then_pictures_then_the_rest() -> None:
    state = view(CONTENT)
    names = {section["uuid"]: section["name"] for section in state["compareRunSections"]}
    shown = [
        (names[c["metricSectionId"]], c["type"], tuple(c.get("selectedMetricKeys") or c.get("imageKeys") or ()))
        for c in state["compareRunCharts"]
        if not c["deleted"]
    ]
    assert shown == [
        ("overall, the task's metric", "LINE", ("val/overall",)),
        ("overall, the task's metric", "BAR", ()),
        ("Losses", "LINE", ("train/loss", "val/loss")),
        ("Losses", "LINE", ("train/answer", "val/answer")),
        ("Pictures", "IMAGE", ("val pictures/a", "val pictures/b")),
        ("val/per", "LINE", ("val/per/yes or no",)),
    ]
    (grid,) = [c for c in state["compareRunCharts"] if c["type"] == "IMAGE" and not c["deleted"]]
    assert (grid["step"], grid["showRunParams"]) == (300, False)
    hidden = {c["metricKey"] for c in state["compareRunCharts"] if c["deleted"] and "metricKey" in c}
    assert hidden == {"epoch", "val/loss", "val/answer"}, "else the page would add a chart of each"
    assert {c["metricKey"] for c in state["compareRunCharts"] if "metricKey" in c} == set(CONTENT.metrics)


def test_keys_and_steps_of_pictures_come_from_their_files() -> None:
    files = [
        "images/val pictures~a+step+0+timestamp+1+x.png",
        "images/val pictures~a+step+75+timestamp+1+y+compressed.webp",
    ]
    assert _pictures([*files, "images/other.txt"]) == {"val pictures/a": {0, 75}}


def test_the_address_opens_charts_or_list_of_the_training_view() -> None:
    charts, listed = (address("http://h:1", "5", charts=charts) for charts in (True, False))
    assert charts.startswith("http://h:1/#/experiments/5/runs?") and "workflowType=machine_learning" in charts
    assert "compareRunsMode=CHART" in charts and "compareRunsMode=TABLE" in listed
