"""Settings that suit a data set: statistics of its training records -> values, each with its reason in plain words.

`RULES` is the table, from top to bottom; a rule sees what those above it chose, and gives None where it has nothing to
say. A rule counts where the task's or the model's Config has the setting. What a machine can bear stands in `case.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.ingest.presets import detectors, rules
from pipeline.ingest.presets.case import CPU, GPU, Case, Machine, Rule, Setting
from pipeline.ingest.statistics import Statistics

__all__ = ("CPU", "GPU", "Machine", "Setting", "presets")

RULES: tuple[tuple[str, Rule], ...] = (
    # the task
    ("task.image_size", rules.image_size),
    ("task.resize", rules.resize),
    ("task.label_smoothing", rules.label_smoothing),
    ("task.max_words", rules.longest("captions", 12, 60)),
    ("task.max_words", rules.longest("questions", 12, 60)),
    ("task.max_tokens", rules.longest("texts", 32, 1000)),
    ("task.max_characters", rules.max_characters),
    ("task.image_width", rules.image_width),
    ("task.min_word_count", rules.rare("captions")),
    ("task.min_word_count", rules.rare("questions")),
    ("task.min_token_count", rules.rare("texts")),
    ("model.dropout", rules.dropout),
    ("task.num_answers", rules.num_answers),
    ("task.search", detectors.search),
    # the model
    ("model.backbone", rules.backbone),
    ("model.pretrained", rules.pretrained),
    ("model.norm", rules.norm),
    ("model.levels", detectors.levels),
    ("model.head_levels", detectors.head_levels),
    ("model.anchors", detectors.anchors),
    ("model.aspect_ratios", detectors.aspect_ratios),
    ("model.rpn_pre_nms_train", detectors.proposals(8, 200, 2000, "before suppression")),
    ("model.rpn_pre_nms_eval", detectors.proposals(8, 200, 1000, "before suppression")),
    ("model.rpn_post_nms_train", detectors.proposals(8, 100, 2000, "proposals that are kept")),
    ("model.rpn_post_nms_eval", detectors.proposals(4, 50, 1000, "proposals that are kept")),
    ("model.roi_batch", detectors.roi_batch),
    ("model.max_detections", detectors.max_detections),
    # training
    ("train.batch_size", rules.batch_size),
    ("train.max_epochs", rules.max_epochs),
    ("train.validate_every_epochs", rules.validate_every),
    ("train.optimizer", rules.learning_rate),
    ("task.augment", rules.augment),
    # storage
    ("shards.samples", rules.samples),
    ("shards.short_side", rules.short_side),
    ("shards.max_megapixels", rules.max_megapixels),
)


def presets(
    found: Statistics, task: str, known: Mapping[str, set[str]], machine: Machine, weights: tuple[str, ...] = ()
) -> dict[str, Setting]:
    """Settings by their paths (`task.image_size`, `train.max_epochs`, ..).

    Args:
        known: the settings that `task` and `model` have, by their names.
        weights: backbones whose pretrained weights are at hand.
    """
    chosen: dict[str, Setting] = {}
    for path, rule in RULES:
        section, _, key = path.partition(".")
        if section in known and key not in known[section]:
            continue
        setting = rule(Case(found=found, task=task, machine=machine, weights=weights, chosen=chosen))
        if setting is not None:
            chosen[path] = setting
    return chosen
