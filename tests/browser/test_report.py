"""The page of runs in a browser: what a person reads, chooses and sees. It is opened as a file: there is no server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from lightning_modules.metrics.paired import difference
from pipeline.measuring.report import CONSTANT, write_report
from pipeline.system.project import Project
from tests.evaluated_runs import accuracy, write_params, write_run

ERRORS = {"kind": "bar", "title": "Errors by kind", "x": "error", "y": "share", "series": None}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Four runs on the same 300 items: one clearly better than two that are alike, one clearly worse."""
    root = tmp_path_factory.mktemp("pets")
    generator, hard = np.random.default_rng(4), np.random.default_rng(5).random(300)
    curves, steps = ("val/top1", "val/loss"), range(0, 500, 50)
    shares = {"large": 0.8, "middle": 0.6, "twin": 0.61, "small": 0.4}
    for i, (name, share) in enumerate(shares.items()):
        right = (0.5 * hard + 0.5 * generator.random(300) < share).astype(float)
        top5 = (0.5 * hard + 0.5 * generator.random(300) < share + 0.1).astype(float)
        write_run(
            root, name, right, more=[accuracy(top5, "top5")],
            settings={"train.seed": i, "train.batch_size": 16}, cost={"time_s": 600.0, "num_parameters": 2_400_000},
            curves={key: [(step, step / 1000 * share) for step in steps] for key in curves},
            tables={"errors": (ERRORS, f"error,share\nwrong class,{share / 10}\nmissed,{share / 20}\n")},
            pictures={key: np.full((60, 80, 3), 50 * i + 20, np.uint8) for key in ("photo-1", "photo-2")},
        )  # fmt: skip
    write_params(root, list(shares))
    write_report(Project(root), (), root / "report.html")
    return Project(root)


@pytest.fixture
def page(project: Project, browser: Any) -> Iterator[Any]:
    """The page, opened; it fails where anything but the file was asked for, or a script failed."""
    context = browser.new_context()
    shown, wrong = context.new_page(), []
    shown.on("request", lambda asked: asked.url.startswith(("file:", "data:")) or wrong.append(asked.url))
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    shown.on("console", lambda said: wrong.append(said.text))
    shown.goto((project.root / "report.html").as_uri())
    yield shown
    context.close()
    assert wrong == []


def expected(project: Project, first: str, second: str, metric: str = "top1") -> tuple[float, float, float, str]:
    """What `comparison.difference` says."""
    values, drawn = [], []
    for name in (first, second):
        values.append(json.loads(project.measured(name).read_text())["metrics"][metric])
        with np.load(project.evaluation(name) / "resamples.npz") as arrays:
            drawn.append(arrays[f"run/{metric}"].astype(np.float64))
    found = difference((values[0], values[1]), (drawn[0], drawn[1]))
    assert found.low is not None and found.high is not None
    return found.value, found.low, found.high, found.verdict


def signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def test_the_board_has_each_run_its_number_interval_cost_and_difference(project: Project, page: Any) -> None:
    rows = page.locator(".board tbody tr")
    names = [rows.nth(i).get_attribute("data-run") for i in range(rows.count())]
    assert names == ["large", "twin", "middle", "small", CONSTANT]
    for name, said in (("large", "better"), ("middle", "cannot tell"), ("small", "worse")):
        row = page.locator(f'.board tr[data-run="{name}"]')
        entry = json.loads(project.measured(name).read_text())["measured"][0]
        assert row.locator(".value").inner_text() == f"{entry['value']:.4f}"
        low, high = entry["interval_95"]
        assert f"{low:.4f} to {high:.4f}" in row.inner_text()
        value, low, high, verdict = expected(project, name, "twin")
        assert verdict == said and row.locator(".chip").inner_text() == said
        assert f"{signed(value)} ({signed(low)} to {signed(high)})" in row.inner_text().replace("\n", " ")
        assert "10.0 min" in row.inner_text() and "2.40 M" in row.inner_text()
    assert "reference" in page.locator('.board tr[data-run="twin"]').inner_text()


def test_choosing_two_runs_shows_their_difference(project: Project, page: Any) -> None:
    def choose(role: str, name: str) -> None:
        page.locator(f'select[data-role="{role}"]').select_option(label=name)

    said = page.locator(".verdict")
    for first, second in (("small", "middle"), ("middle", "small"), ("middle", "twin")):
        choose("first run", first)
        choose("second run", second)
        value, low, high, verdict = expected(project, first, second)
        start = {"cannot tell": f"Cannot tell {first} from {second}"}.get(
            verdict, f"{first} is {verdict} than {second}"
        )
        assert said.inner_text() == f"{start}: {signed(value)} in top1 (95 % interval {signed(low)} to {signed(high)})."
        value, low, high, _ = expected(project, first, second, "top5")
        row = page.locator('.pair tr[data-metric="top5"]').inner_text()
        assert signed(value) in row and f"{signed(low)} to {signed(high)}" in row
    page.get_by_text("swap").click()
    assert said.inner_text().startswith("Cannot tell twin from middle")
    choose("second run", CONSTANT)
    choose("first run", "large")
    assert said.inner_text().startswith(f"large is better than the {CONSTANT}")
    assert page.locator('select[data-role="reference"]').input_value() == "4", "the board follows"


def test_pictures_are_there_and_grow(page: Any) -> None:
    images = page.locator(".pictures img")
    assert images.count() == 8, "two of each of four runs"
    widths = images.evaluate_all("all => Promise.all(all.map(one => one.decode().then(() => one.naturalWidth)))")
    assert widths == [80] * 8
    images.nth(0).click()
    large = page.locator("dialog img")
    assert large.is_visible() and large.evaluate("one => one.decode().then(() => one.naturalWidth)") == 80
    page.get_by_text("close").click()
    assert not large.is_visible()


def test_curves_errors_and_settings_follow_what_is_ticked(page: Any) -> None:
    charts = page.locator(".curves .card")
    assert [charts.nth(i).locator("h4").inner_text() for i in range(charts.count())] == ["val/top1", "val/loss"]
    assert charts.nth(0).locator("polyline").count() == 4
    places = charts.nth(0).locator("polyline").nth(0).get_attribute("points").split()
    assert len(places) == 10 and len({place.split(",")[1] for place in places}) == 10, "it rises"
    assert "wrong class" in page.locator(".errors").inner_text() and page.locator(".errors .one").count() == 8
    settings = page.locator(".settings > .wide").inner_text()
    assert "train.seed" in settings and "train.batch_size" not in settings, "only what differs"
    charts.nth(0).locator("svg").hover()
    assert "twin" in charts.nth(0).locator(".tip").inner_text()
    for name in ("middle", "small"):
        page.locator(f'.board tr[data-run="{name}"] input').uncheck()
    assert charts.nth(0).locator("polyline").count() == 2
    assert page.locator(".errors .one").count() == 4 and page.locator(".pictures img").count() == 4


def test_the_board_sorts(page: Any) -> None:
    def names() -> list[str]:
        rows = page.locator(".board tbody tr")
        return [rows.nth(i).get_attribute("data-run") for i in range(rows.count())]

    page.locator(".board th button", has_text="run").click()
    assert names() == [CONSTANT, "large", "middle", "small", "twin"]
    page.locator(".board th button", has_text="top1").click()
    assert names() == ["large", "twin", "middle", "small", CONSTANT]
    page.locator(".board th button", has_text="top1").click()
    assert names() == [CONSTANT, "small", "middle", "twin", "large"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_nothing_is_wider_than_the_screen(project: Project, browser: Any, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto((project.root / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    back, ink = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    light = [sum(map(int, color[4:-1].split(","))) for color in (back, ink)]
    assert abs(light[0] - light[1]) > 500 and (light[0] > light[1]) == (scheme == "light"), "it can be read"
    page.close()
