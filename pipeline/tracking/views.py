"""The view of an experiment that MLflow's pages open with: columns of the list, order of the charts, pictures.

MLflow keeps named views as tags of an experiment (what "Save view" writes, under "Views" beside its title), and opens
one whose key stands in the address. How they are written is not documented: `tests/browser` opens them in a browser.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

NAME, KEY = "Results", "sightline-results"
TAG = f"mlflow.sharedViewState.{KEY}"
METRIC, MODE, INTERVAL, CHAMPION = "metric", "metric_mode", "interval", "champion"  # tags of a run
IMAGES = "images"  # the folder of a run's artifacts that MLflow's image grid reads
MOST_TAG = 20_000  # characters, MLflow's limit
_MOST_RUNS, _MOST_COLUMNS = 100, 3
_LOGS_IMAGES = "mlflow.loggedImages"


@dataclass(frozen=True)
class Content:
    """What the runs of an experiment have. `metric` is the task's, as it is logged; `steps` those at which all runs
    that have pictures have them; `params` what differs among the runs, by how many have it."""

    metric: str
    descending: bool
    metrics: tuple[str, ...]
    pictures: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    params: tuple[str, ...] = ()


def refresh_view(client: MlflowClient, experiment_id: str) -> bool:
    """Write the view of an experiment anew where what its runs have calls for another one; whether there is one.

    An experiment without a measured run has none.
    """
    runs = client.search_runs([experiment_id], max_results=_MOST_RUNS)
    content = content_of(client, runs)
    if content is None:
        return False
    state = view(content)
    experiment = client.get_experiment(experiment_id)
    if _state_of(experiment.tags.get(TAG, "")) != state:
        packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
        value = json.dumps({"name": NAME, "createdAt": experiment.creation_time or 0, "state": f"deflate;{packed}"})
        if len(value) > MOST_TAG:
            return False  # thousands of metrics: MLflow's own order is as good
        client.set_experiment_tag(experiment_id, TAG, value)
    if experiment.tags.get("mlflow.experimentKind") is None:
        client.set_experiment_tag(experiment_id, "mlflow.experimentKind", "custom_model_development")
    return True


def address(base: str, experiment_id: str, *, charts: bool) -> str:
    """Of the view: its charts, or the list of its runs."""
    mode = "CHART" if charts else "TABLE"
    query = f"viewStateShareKey={KEY}&compareRunsMode={mode}&workflowType=machine_learning"
    return f"{base}/#/experiments/{experiment_id}/runs?{query}"


def content_of(client: MlflowClient, runs: Sequence[Run]) -> Content | None:
    measured = [run for run in runs if METRIC in run.data.tags]
    if not measured:
        return None
    newest = measured[0].data.tags
    names = {name for run in runs for name in run.data.metrics if not name.startswith("system/")}
    pictures: dict[str, set[int]] = {}
    steps: list[set[int]] = []
    for run in [run for run in runs if _LOGS_IMAGES in run.data.tags][:10]:  # as many as the page shows
        found = _pictures(file.path for file in client.list_artifacts(run.info.run_id, IMAGES))
        for key, at in found.items():
            pictures.setdefault(key, set()).update(at)
        if found:
            steps.append(set.intersection(*found.values()))
    return Content(
        metric=newest[METRIC],
        descending=newest.get(MODE) != "min",
        metrics=tuple(sorted(names)),
        pictures=tuple(sorted(pictures)),
        steps=tuple(sorted(set.intersection(*steps))) if steps else (),
        params=_telling_params([run.data.params for run in runs]),
    )


def _pictures(paths: Iterable[str]) -> dict[str, set[int]]:
    """Keys of pictures with their steps, of file names `<key>+step+<step>+...`."""
    found: dict[str, set[int]] = {}
    for path in paths:
        key, _, rest = path.rpartition(f"{IMAGES}/")[2].partition("+step+")
        if rest:
            found.setdefault(key.replace("~", "/"), set()).add(int(rest.partition("+")[0]))
    return found


def _telling_params(params: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    names = dict.fromkeys(name for given in params for name in given)
    differing = [name for name in names if len({given.get(name) for given in params}) > 1]
    return tuple(sorted(differing, key=lambda name: -sum(name in given for given in params))[:_MOST_COLUMNS])


def view(content: Content) -> dict[str, Any]:
    """The state of MLflow's page: columns, order, and charts in sections."""
    columns = [f"metrics.`{content.metric}`", f"tags.`{INTERVAL}`", f"tags.`{CHAMPION}`"]
    columns += [f"params.`{name}`" for name in content.params]
    charts, sections = _charts(content)
    return {
        "orderByKey": f"metrics.`{content.metric}`",
        "orderByAsc": not content.descending,
        "selectedColumns": columns,  # no more than fits beside the names
        "columnOrder": ["0", "attributes.`Run Name`", "runDateAndNestInfo", *columns, "duration"],
        "columnWidths": {"attributes.`Run Name`": 380, "runDateAndNestInfo": 130, **dict.fromkeys(columns, 125)},
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "isAccordionReordered": True,  # else the page sorts the sections by name
    }


def _charts(content: Content) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    numbers = count()
    charts: list[dict[str, Any]] = []
    sections: list[dict[str, Any]] = []

    def section(name: str, **size: int) -> str:
        key = f"section-{len(sections)}"
        sections.append({"uuid": key, "name": name, "display": True, "isReordered": True, "isGenerated": True, **size})
        return key

    def card(place: str, kind: str, **settings: Any) -> None:
        common = {"uuid": f"card-{next(numbers)}", "metricSectionId": place, "isGenerated": True, "deleted": False}
        charts.append({"type": kind, **common, **settings})

    def line(place: str, name: str, *others: str) -> None:
        keys = [name, *others]
        card(place, "LINE", **_LINE, metricKey=name, selectedMetricKeys=keys, displayName=" and ".join(keys))

    metric, names = content.metric, content.metrics
    split = metric.partition("/")[0]
    losses = [name for name in names if name.startswith("train/")]
    losses.sort(key=lambda name: name != "train/loss")
    pairs = {name: f"{split}/{name.partition('/')[2]}" for name in losses}
    top = section(f"{metric.partition('/')[2]}, the task's metric", columns=2)
    line(top, metric)
    card(top, "BAR", metricKey=metric, displayName=f"{metric}, as delivered", isGenerated=False)
    if losses:
        place = section("Losses")
        for name, other in pairs.items():
            line(place, name, *([other] if other in names else []))
    if content.pictures:
        place = section("Pictures", columns=1, cardHeight=720)
        step = content.steps[-1] if content.steps else 0
        card(place, "IMAGE", imageKeys=list(content.pictures), step=step, showRunParams=False, isGenerated=False)
        for key in content.pictures if len(content.pictures) > 1 else ():  # else the page adds one of each
            card(place, "IMAGE", imageKeys=[key], step=0, showRunParams=False, deleted=True)
    hidden = set(pairs.values()) | {"epoch"}
    more = [name for name in names if name not in {*losses, metric}]
    places = {name: section(name) for name in dict.fromkeys(_section(name) for name in more if name not in hidden)}
    for name in more:
        card(
            places.get(_section(name), top), "LINE", **_LINE, metricKey=name, selectedMetricKeys=[name],
            displayName=name.rpartition("/")[2], deleted=name in hidden,
        )  # fmt: skip
    for name in ("Model metrics", "System metrics"):  # of the page's own
        section(name)
        sections[-1]["display"] = False
    return charts, sections


_LINE = {
    "xAxisKey": "step", "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True, "lineSmoothness": 0,
    "xAxisScaleType": "linear", "scaleType": "linear", "range": {}, "yAxisKey": "metric", "yAxisExpressions": [],
}  # fmt: skip


def _section(metric: str) -> str:
    """Where MLflow puts the chart of a metric by itself."""
    return metric.rpartition("/")[0] or "Model metrics"


def _state_of(value: str) -> Any:
    """The state that a tag holds; None where it holds none that can be read."""
    try:
        packed = json.loads(value)["state"].removeprefix("deflate;")
        return json.loads(zlib.decompress(base64.b64decode(packed)))
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error):
        return None
