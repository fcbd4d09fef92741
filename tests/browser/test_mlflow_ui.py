"""What a person meets in the pages of MLflow: `sightline ui` on two runs of a project that was moved, in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import RUN, WAIT_S, Served

pytestmark = pytest.mark.filterwarnings("default")

FIRST, SECOND = re.compile(f"^{RUN}: .*lr=0.005"), re.compile(f"^{RUN}: .*lr=0.001")
SECTION = '[data-testid="experiment-view-compare-runs-section-header"]'
LOADED = "image => image.complete && image.naturalWidth > 0"
PICTURES = 'img[src*="get-artifact"]'


@pytest.fixture(autouse=True)
def patience() -> None:
    expect.set_options(timeout=WAIT_S * 1000)


def order(page: Page, *texts: str) -> list[str]:
    """`texts` from top to bottom, each where the page has it first."""
    places = {text: page.get_by_text(text, exact=True).first.bounding_box() for text in texts}
    assert all(places.values()), places
    return sorted(texts, key=lambda text: places[text]["y"])  # type: ignore[index]


def wait_for_pictures(page: Page, count: int) -> list[str]:
    """The addresses of the first pictures of the page, as soon as `count` are shown."""
    pictures = page.locator(PICTURES)
    expect(pictures).to_have_count(count)
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        page.wait_for_function(LOADED, arg=picture.element_handle())
        assert picture.bounding_box()["width"] > 100  # type: ignore[index]
    return [str(picture.get_attribute("src")) for picture in pictures.all()]


def test_the_command_prints_links_and_no_warning(served: Served) -> None:
    assert served.told.startswith(f"MLflow UI on {served.base}"), served.told
    assert f"\n{RUN}, 2 runs\n" in served.told
    warned = [line for line in served.warned.splitlines() if "its paths are those of" not in line]
    assert not warned and "its paths are those of" in served.warned, "moved: told once, and nothing else"


def test_the_charts_link_opens_metric_losses_and_pictures_in_this_order(page: Page, served: Served) -> None:
    page.goto(served.link("charts"))
    headings = ("mean_iou, the task's metric", "Losses", "Pictures", "val")
    expect(page.get_by_text(headings[0])).to_be_visible()
    expect(page.get_by_role("heading", name="Image grid")).to_be_visible()
    assert order(page, *(f"{heading}" for heading in headings[:3])) == list(headings[:3])
    text = page.inner_text("body")
    assert "constant" not in text and "eval_low" not in text
    expect(page.get_by_text("train/loss vs val/loss")).to_be_visible()  # on one axis
    shown = wait_for_pictures(page, 4)  # two images of two runs
    keys = [re.search(r"images%2F(.*?)%2Bstep", source)[1] for source in shown]  # type: ignore[index]
    assert keys[0] == keys[1] != keys[2] == keys[3], "the same image of both runs in a row"
    assert "train.optimizer.lr=" not in page.inner_text("body"), "no parameters over the pictures"
    expect(page.get_by_text(FIRST).first).to_be_visible()
    expect(page.get_by_text(SECOND).first).to_be_visible()


def test_without_the_link_the_untrained_models_pictures_show_at_step_0(page: Page, served: Served) -> None:
    page.goto(f"{served.base}/#/experiments/{experiment(served)}/runs?compareRunsMode=CHART")
    expect(page.get_by_text("val pictures", exact=False).first).to_be_visible()
    shown = wait_for_pictures(page, 4)
    assert all("%2Bstep%2B0%2B" in source for source in shown)
    body = page.inner_text("body")
    (told,) = {line for line in body.splitlines() if line.startswith("dataset=voc") and "lr=0.005" in line}
    assert told.count("=") < 10, "a few parameters, so that the card shows the picture"


def test_the_list_shows_metric_interval_and_champion(page: Page, served: Served) -> None:
    page.set_viewport_size({"width": 1500, "height": 900})
    page.goto(served.link("list"))
    for header in ("val/mean_iou", "interval", "champion"):
        expect(page.get_by_role("columnheader", name=header).first).to_be_in_viewport()
    rows = page.get_by_role("row").filter(has_text=re.compile(r"\d to \d"))
    expect(rows).to_have_count(2)
    best, other = (row.inner_text().splitlines() for row in rows.all())
    assert "yes" in best and "no" in other, (best, other)
    expect(page.get_by_text(FIRST).first).to_be_visible()


def test_a_run_says_its_result_and_the_decision(page: Page, served: Served) -> None:
    page.goto(served.link("list"))
    page.get_by_text(FIRST).first.click()
    expect(page.get_by_text(re.compile(r"95 % interval 0\.\d+ to 0\.\d+; a constant predictor"))).to_be_visible()
    expect(page.get_by_text("champion: the first version fit to be champion")).to_be_visible()
    link = page.get_by_role("link", name=f"{RUN}, version 1")  # of another tab
    expect(link).to_have_attribute("href", f"#/models/{RUN}/versions/1")


def test_a_version_says_metric_data_and_the_whole_reason(page: Page, served: Served) -> None:
    page.goto(f"{served.base}/#/models/{RUN}/versions/2")
    expect(page.get_by_text(re.compile(r"on 11 samples of split val of voc \(manifest \w{16}\)"))).to_be_visible()
    expect(page.get_by_text(re.compile("^not champion: mean_iou .* is not better than .*")).first).to_be_visible()
    link = page.get_by_role("link", name=re.compile("^run "))
    expect(link).to_have_attribute("href", re.compile(rf"^#/experiments/{experiment(served)}/runs/\w{{32}}$"))


@pytest.mark.parametrize("address", [lambda s: f"{s.base}/", lambda s: s.link("charts")], ids=["home", "charts"])
def test_neither_assistant_nor_telemetry(page: Page, served: Served, address: Callable[[Served], str]) -> None:
    page.goto(address(served))
    expect(page.get_by_text("Model training").first).to_be_visible()
    expect(page.get_by_text("MLflow Assistant")).to_be_hidden()
    expect(page.get_by_text("UI telemetry")).to_be_hidden()
    told = page.request.get(f"{served.base}/ajax-api/3.0/mlflow/ui-telemetry").json()
    assert told["disable_ui_telemetry"] is True
    assert page.request.get(f"{served.base}/ajax-api/3.0/mlflow/assistant/config").status == 404


def experiment(served: Served) -> str:
    found = re.search(r"experiments/(\d+)/", served.link("charts"))
    assert found is not None
    return found[1]
