"""What is deleted is proven to lie inside the folder that is ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import ConfigError
from pipeline.system.removal import remove_tree


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    for folder in ("project/data/raw/coco", "precious"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").write_text("keep")
    return tmp_path / "project"


def test_a_folder_below_goes_with_all_that_is_in_it(inside):
    remove_tree(inside / "data" / "raw" / "coco", inside=inside)
    remove_tree(inside / "data" / "raw" / "coco", inside=inside)  # nothing there is no mistake
    assert list((inside / "data" / "raw").iterdir()) == []


@pytest.mark.parametrize("path", ["../precious", "data/raw/../../../precious", ".", "data/..", ".."])
def test_nothing_else_goes(inside, path):
    with pytest.raises(ConfigError, match="outside of the project: nothing was deleted"):
        remove_tree(inside / path, inside=inside)
    assert (inside.parent / "precious" / "file").read_text() == "keep"
    assert (inside / "data" / "raw" / "coco" / "file").read_text() == "keep"


def test_a_link_goes_but_not_what_it_points_to(inside):
    link = inside / "data" / "raw" / "voc"
    link.symlink_to(inside.parent / "precious")
    remove_tree(link, inside=inside)
    assert not link.is_symlink()
    assert (inside.parent / "precious" / "file").read_text() == "keep"


def test_a_path_through_a_link_that_leads_outside_is_refused(inside):
    (inside / "elsewhere").symlink_to(inside.parent)
    with pytest.raises(ConfigError, match="outside of the project"):
        remove_tree(inside / "elsewhere" / "precious", inside=inside)
    assert (inside.parent / "precious" / "file").read_text() == "keep"
