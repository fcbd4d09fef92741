"""What `sightline check` says of the folders that data sets name: hints, since a folder may come later.

Looks at names, a few bytes of annotation files and the headers of some pictures, for a fraction of a second in all, and
imports no source: what it cannot tell for sure it leaves to the stages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from contracts.errors import SightlineError
from pipeline.ingest.layouts import NAMES, Layout, layouts
from pipeline.ingest.tree import Tree, joined
from pipeline.settings.params import Params
from pipeline.settings.parse import one_line
from pipeline.settings.sections import DatasetConfig, ShardsConfig
from pipeline.settings.uris import is_url

_MOST_S = 0.3  # for one data set
_NUM_OPENED = 8
_FAR_LARGER = 3  # times image_size, of a picture's shorter side


def hints(params: Params, root: Path) -> list[str]:
    """One text for each thing that will not do, or not do well. Never raises for what lies in a folder.

    Args:
        root: the project's folder, which relative inputs start from.
    """
    told: list[str] = []
    for name, entry in params.document["datasets"].items():
        if isinstance(entry, Mapping) and entry.get("origin") == "local":
            try:
                config = params.dataset(name)
                if is_url(config.input):  # in a store: stages ask it
                    continue
                told += [f"datasets.{name}: {text}" for text in _of_dataset(params, name, config, root / config.input)]
            except (SightlineError, OSError):  # told by check itself; or a folder that may not be read
                continue
    return told


def _of_dataset(params: Params, name: str, config: DatasetConfig, folder: Path) -> Iterator[str]:
    if not folder.is_dir():
        yield _no_folder(folder)
        return
    tree = Tree(folder, _MOST_S)
    needed = ["train"] if config.split and config.split.val else ["train", "val"]
    for source, section in config.sources.items():
        settings = params.part_config("source", {"name": source, **section}, source)
        wanted = {split: _expected(tree, source, settings, split) for split in needed}
        absent = {split: paths for split, paths in wanted.items() if paths and not any(map(tree.has, paths))}
        if absent:
            yield _absent(tree, source, absent)
    yield from _of_pictures(params, name, tree)


def _no_folder(folder: Path) -> str:
    above = next((one for one in folder.parents if one.is_dir()), folder)
    near = sorted(one.name for one in above.iterdir() if one.is_dir() and not one.name.startswith("."))[:6]
    return f"no folder {folder} yet; {above} holds {', '.join(near) or 'no folders'}"


def _expected(tree: Tree, source: str, settings: Any, split: str) -> list[str]:
    """Paths of which one must be there for `split`; none where that cannot be told from names alone."""
    names = getattr(settings, "splits", {}).get(split, split)
    names = (names,) if isinstance(names, str) else tuple(names)
    if source in ("image_folder", "labelme"):
        return [getattr(settings, split)] if getattr(settings, split) else []
    if source == "voc":
        return [path for folder in settings.folders for path in _voc_lists(tree, folder, settings, split)]
    if source == "camvid":
        return [joined(settings.folder, split)]
    if source == "yolo":
        return [settings.data]
    if source == "karpathy":
        return [settings.file]
    if source == "video_segments":
        return [settings.videos] if split == "train" else []
    if source == "visual7w":
        return [settings.questions] if settings.questions else list(settings.published)
    if source == "word_images" and not settings.lists:
        return [settings.images] if split == "train" else []
    keys = {
        "word_images": ("lists",),
        "coco": ("instances", "captions"),
        "vqa": ("questions",),
        "labeled_text": ("files",),
        "sentences": ("files",),
        "frame_folders": ("lists",),
    }
    templates = [getattr(settings, key) for key in keys.get(source, ())]
    if source == "sentences":  # all languages have the same splits
        templates = [one.replace("{language}", next(iter(settings.languages.values()))) for one in templates]
    paths = [template.replace("{split}", name) for template in templates if "{split}" in template for name in names]
    paths += [template for template in templates if template and "{split}" not in template and split == "train"]
    paths = [joined(folder, path) for folder in getattr(settings, "folders", (".",)) for path in paths]
    return [*paths, *(f"{path}.gz" for path in paths if source in ("labeled_text", "sentences"))]


def _voc_lists(tree: Tree, folder: str, settings: Any, split: str) -> list[str]:
    list_name = getattr(settings, split)
    sets = joined(folder, "ImageSets")
    if not tree.has(sets) or list_name == "*":
        return [joined(folder, settings.images)] if split == "train" or list_name == "*" else [f"{sets} with lists"]
    folders = tree.folders[sets].folders if sets in tree.folders else []
    chosen = folders[0] if settings.image_sets not in folders and len(folders) == 1 else settings.image_sets
    return [f"{sets}/{chosen}/{list_name}.txt"] if list_name else []


def _absent(tree: Tree, source: str, absent: Mapping[str, list[str]]) -> str:
    said = "; ".join(f"no {split} split: {', '.join(paths[:2])} is not there" for split, paths in absent.items())
    others = [layout for layout in layouts(tree, source) if _is_whole(tree, source, layout)]
    if others:
        return f"{said}; what lies there would be read by {_proposed(others[0])}"
    if "train" not in absent:
        near = [name for name in NAMES["val"] for path in absent["val"] if tree.has(path.replace("val", name))]
        return f"{said}; " + (f"splits: {{val: {near[0]}}}" if near else "draw one from train: split: {val: 0.1}")
    there = [path for path, kind, _ in tree.files if kind][:4]
    return f"{said}; " + (f"annotations lie in {', '.join(there)}" if there else "no annotations were found below it")


def _is_whole(tree: Tree, source: str, layout: Layout) -> bool:
    """Whether a way to read the folder was made from what lies there."""
    return bool(layout.sources[source])


def _proposed(layout: Layout) -> str:
    return one_line({"sources": layout.sources, **layout.beside})[1:-1]


def _of_pictures(params: Params, dataset: str, tree: Tree) -> Iterator[str]:
    """Pictures that are stored far larger than any run looks at them."""
    sizes = []
    for name in params.document["runs"]:
        run = params.read_run(name, [])
        if run is not None and run.dataset == dataset and "image_size" in run.task:
            sizes.append(int(run.task["image_size"]))
    if not sizes:
        return
    shapes = list(_shapes(tree))
    if not shapes:
        return
    width, height = sorted(shapes, key=max)[len(shapes) // 2]
    short_side = params.section(ShardsConfig, "shards").short_side
    scale = min(1.0, short_side / min(width, height)) if short_side else 1.0
    if min(width, height) * scale > _FAR_LARGER * max(sizes):
        yield (
            f"pictures are stored as {round(width * scale)} x {round(height * scale)} and learnt at image_size "
            f"{max(sizes)}: small things vanish, and loading takes longer than it need; a larger task.image_size sees "
            f"more, shards.short_side: {max(32, -(-5 * max(sizes) // 4))} stores less"
        )


def _shapes(tree: Tree) -> Iterator[tuple[int, int]]:
    """Widths and heights of some pictures, from different folders."""
    from PIL import Image

    opened = 0
    for path in tree.images():
        if opened == _NUM_OPENED or tree.is_over:
            return
        if any(part.lower().endswith(("annot", "masks", "class", "object", "labels")) for part in path.parts[-2:-1]):
            continue
        opened += 1
        try:
            with Image.open(path) as image:
                yield image.size
        except (OSError, ValueError, SyntaxError):
            continue
