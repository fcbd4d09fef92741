"""Path templates of the sources' settings."""

from __future__ import annotations

import pytest

from contracts.errors import ConfigError
from pipeline.sources._files import check_template


@pytest.mark.parametrize("template", ["{split}2014", "images/{split}/{image_id:012d}.jpg", "plain", "{split:s}"])
def test_names_and_widths_are_taken(template):
    check_template("images", template, split="train", image_id=1)


@pytest.mark.parametrize(
    "template",
    [
        "{split:>9999999999}",
        "{split:100}",
        "{split.__class__}",
        "{split[0]}",
        "{split!r}",
        "{other}",
        "{}",
        "{split",
        "{split:d}",
    ],
)
def test_what_else_a_template_could_do_is_refused(template):
    """The first would take ten gigabytes."""
    with pytest.raises(ConfigError, match="images cannot be filled in"):
        check_template("images", template, split="train", image_id=1)
