"""Ways to read a folder: for each source the settings that suit the names that lie there, the likeliest first.

A guess from names and a few bytes: who takes one reads records with it (`new_project.py`) or proposes it (`check`).
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.ingest.tree import Tree, joined

NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "validate", "dev"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {name: split for split, names in NAMES.items() for name in names}
_TOKEN = re.compile(rf"(?<![A-Za-z])({'|'.join(sorted(_SPLIT_OF, key=len, reverse=True))})(?![A-Za-z])")
_DRAWN = {"split": {"val": 0.1}}
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*"([^"\\]+)"')
_FIRST_PATH = re.compile(rb"\A(?:\xef\xbb\xbf)?([^\s]+)")
_IMG_PATH = re.compile(rb'"img_path"\s*:\s*"([^"\\]+)"')
_FILENAME = re.compile(rb'"filename"\s*:\s*"([^"\\]+)"')
_LANGUAGE = re.compile(r"train\.([a-z]{2,3}(?:[_-][A-Za-z]{2,4})?)(?:\.gz)?")
_FILE_PATH = re.compile(rb'"filepath"\s*:\s*"([^"\\]+)"')
_IMAGE_ID = re.compile(rb'"image_id"\s*:\s*(\d{1,18})')
_NOT_CLASS_FOLDERS = {"images", "labels", "annotations", "jpegimages", "masks", "imagesets"}
LOOKED_FOR = {
    "camvid": "folders train and trainannot, val and valannot, of photos and of masks of class ids",
    "charades": "Charades_v1_train.csv, Charades_v1_test.csv and Charades_v1_classes.txt, and the videos they name",
    "coco": "JSON files with images and annotations, such as annotations/instances_train2017.json or "
    "train/_annotations.coco.json, and the pictures that they name",
    "frame_folders": "lists train.txt and val.txt of folders of frames",
    "image_folder": "class folders of pictures, train/CLASS/x.jpg, or CLASS/x.jpg",
    "karpathy": "Karpathy's dataset_coco.json (or of flickr8k, flickr30k), and the pictures that it names",
    "labeled_text": "train.txt with a line __label__CLASS TEXT each",
    "labelme": "JSON files with shapes beside their pictures",
    "msrvtt": "MSR-VTT's train_val_videodatainfo.json, and videos by the names in it",
    "proposals": "boxes of other programs in MATLAB files, beside the pictures of another source",
    "sentences": "train.de and train.en, val.de and val.en, a sentence a line",
    "ucf101": "UCF-101/CLASS/v_CLASS_g01_c01.avi, and the lists in ucfTrainTestlist",
    "video_captions": "a table of videos and captions, and the videos",
    "video_segments": "a file a class, of lines `video start end`, and the videos",
    "visual7w": "Visual7W's dataset_v7w_telling.json or dataset_v7w_pointing.json, and the pictures v7w_1.jpg",
    "voc": "folders JPEGImages and Annotations (or SegmentationClass), or pictures with Pascal VOC's XML beside them",
    "vqa": "JSON files of questions and of annotations of VQA v2, and the pictures that they name by number",
    "webdataset": "tars train/*.tar of pictures with .json, .txt or .cls",
    "word_images": "train.txt and val.txt with lines `path label`, or pictures with .gt.txt beside them",
    "yolo": "a data.yaml with train, val and names",
}


@dataclass(frozen=True)
class Layout:
    """One way to read a folder: what stands in `datasets.<name>`, beside origin and input."""

    sources: dict[str, dict[str, Any]]
    beside: dict[str, Any] = field(default_factory=dict)


def layouts(tree: Tree, source: str, *, with_masks: bool = False) -> Iterator[Layout]:
    """Ways in which `source` may read the folder; the published layout, which needs no settings, first.

    Args:
        with_masks: label masks are asked for, so VOC's lists of those are the right ones.
    """
    if source not in worth_trying(tree, [source]):
        return
    yield Layout({source: {}})
    if source == "voc":
        yield from _voc(tree, with_masks)
    elif source in _FINDERS:
        yield from _FINDERS[source](tree)
    yield Layout({source: {}}, _DRAWN)


def worth_trying(tree: Tree, sources: Sequence[str]) -> list[str]:
    """Those of `sources` that may read the folder. That of tars takes seconds to import: not where there is none."""
    return [name for name in sources if name != "webdataset" or tree.of_kind("tar")]


def _split_template(path: str) -> tuple[str, str]:
    """A path with `{split}` in place of a split's name, and that name; "" where it names none."""
    found = _TOKEN.findall(path)
    if not found:
        return path, ""
    return _TOKEN.sub(lambda one: "{split}" if one[0] == found[-1] else one[0], path), found[-1]


def _by_template(paths: list[str]) -> dict[str, dict[str, str]]:
    """Template -> the split's name by split, of the paths that are alike; those with most splits first."""
    groups: dict[str, dict[str, str]] = {}
    for path in paths:
        template, name = _split_template(path)
        groups.setdefault(template, {}).setdefault(_SPLIT_OF.get(name, ""), name)
    return dict(sorted(groups.items(), key=lambda one: ("train" not in one[1], -len(one[1]), one[0])))


def _beside(names: dict[str, str]) -> dict[str, Any]:
    """Settings beside `sources`: other names of the splits that are there, and the val split drawn where none is."""
    called = {split: name for split, name in names.items() if split and split != name}
    return ({"splits": called} if called else {}) | ({} if "val" in names else _DRAWN)


def _coco(tree: Tree) -> Iterator[Layout]:
    contents = dict(tree.of_kind("coco"))
    captions = [path for path, content in contents.items() if b'"caption"' in content]
    instances = [path for path in contents if path not in captions]
    texts = _by_template(captions)
    for template, names in _by_template(sorted(instances, key=lambda path: ("instances" not in path, path))).items():
        if (images := _images_of(tree, template, names, contents)) is not None:
            same = [one for one, of in texts.items() if of.items() >= names.items() and of]
            yield Layout(
                {"coco": {"images": images, "instances": template, "captions": next(iter(same), "")}}, _beside(names)
            )
    for template, names in texts.items():
        if (images := _images_of(tree, template, names, contents)) is not None:
            yield Layout({"coco": {"images": images, "instances": "", "captions": template}}, _beside(names))


def _images_of(
    tree: Tree, template: str, names: dict[str, str], contents: dict[str, bytes], first: re.Pattern[bytes] = _FILE_NAME
) -> str | None:
    """The folder of the images of an annotation file, as a template: it holds the one that each split's file names
    `first`, in the first brackets of that pattern."""
    wanted: dict[str, str] = {}
    for split in ("train", "val", ""):
        if split not in names:
            continue
        content = contents[template.replace("{split}", names[split])]
        if found := first.search(content):
            wanted[names[split]] = found[1].decode("utf-8", "replace").replace("\\", "/")
    folder = posixpath.dirname(template)
    options = {_split_template(one)[0] if names.get("train") else one: None for one in tree.folders}
    for option in dict.fromkeys([folder or ".", *options, *tree.folders]):
        filled = {name: option.replace("{split}", name) for name in wanted}
        if wanted and all(tree.has(joined(filled[name], file)) for name, file in wanted.items()):
            return option
    return None if wanted else folder or "."


def _karpathy(tree: Tree) -> Iterator[Layout]:
    for path, content in tree.of_kind("karpathy"):
        folder, name = _FILE_PATH.search(content), _FILENAME.search(content)
        if name is None:
            continue
        form, image = "{filename}", name[1].decode("utf-8", "replace")
        if folder is not None:
            form, image = "{filepath}/{filename}", f"{folder[1].decode('utf-8', 'replace')}/{image}"
        for below in tree.folders:
            if tree.has(joined(below, image)):
                yield Layout({"karpathy": {"file": path, "images": joined(below, form)}})


def _vqa(tree: Tree) -> Iterator[Layout]:
    questions, answers = dict(tree.of_kind("questions")), _by_template([path for path, _ in tree.of_kind("answers")])
    for template, names in _by_template(list(questions)).items():
        name = names.get("train", next(iter(names.values())))
        found = _IMAGE_ID.search(questions[template.replace("{split}", name)])
        if found is None or not answers:
            continue
        image = int(found[1])
        forms = ("{image_id:012d}.jpg", "COCO_{split}2014_{image_id:012d}.jpg", "{image_id}.jpg", "{image_id}.png")
        for folder, form in ((folder, form) for folder in tree.folders for form in forms):
            if tree.has(joined(folder, form.replace("{split}", name).format(image_id=image))):
                images = joined(_split_template(folder)[0] if name else folder, form)
                files = {"questions": template, "annotations": next(iter(answers)), "images": images}
                yield Layout({"vqa": files}, _beside(names))


def _visual7w(tree: Tree) -> Iterator[Layout]:
    for path, content in tree.of_kind("visual7w"):
        name = _FILENAME.search(content)
        for folder in tree.folders if name else ():
            if name and tree.has(joined(folder, name[1].decode("utf-8", "replace"))):
                yield Layout({"visual7w": {"questions": path, "images": folder}})


def _voc(tree: Tree, with_masks: bool) -> Iterator[Layout]:
    roots = [name for name, folder in tree.folders.items() if "JPEGImages" in folder.folders]
    years = [one for one in roots if re.fullmatch(r"VOC\d{4}", posixpath.basename(one))]
    groups = [years] if len(years) > 1 else []
    for group in [*groups, *([one] for one in roots)]:
        yield from _voc_lists(tree, group, with_masks)
    seen = set()
    for path, _ in tree.of_kind("voc"):  # pictures and XML in one folder, or side by side
        folder, stem = posixpath.dirname(path) or ".", posixpath.splitext(posixpath.basename(path))[0]
        if folder in seen or any(joined(one, "Annotations") == folder for one in roots):
            continue
        seen.add(folder)
        for images in [folder, *tree.folders]:
            if any(tree.has(joined(images, stem + suffix)) for suffix in (".jpg", ".png", ".jpeg", ".JPG")):
                yield Layout({"voc": {"folders": ["."], "images": images, "annotations": folder}}, _DRAWN)
                break


def _voc_lists(tree: Tree, folders: list[str], with_masks: bool) -> Iterator[Layout]:
    base: dict[str, Any] = {"folders": folders}
    for sets in ("Segmentation", "Main") if with_masks else ("Main", "Segmentation", "Layout"):
        place = [joined(folder, f"ImageSets/{sets}") for folder in folders]
        there = {
            split: next(name for name in names if any(tree.has(f"{one}/{name}.txt") for one in place))
            for split, names in (NAMES | {"train": (*NAMES["train"], "trainval")}).items()
            if any(tree.has(f"{one}/{name}.txt") for one in place for name in names)
        }
        if "train" in there:
            called = {split: name for split, name in there.items() if split != name}
            chosen = {} if sets == "Main" else {"image_sets": sets}
            yield Layout({"voc": {**base, **chosen, **called}}, {} if "val" in there else _DRAWN)
    yield Layout({"voc": base}, _DRAWN)
    # Lists, but none of training pictures: all pictures are.
    yield Layout({"voc": {**base, "train": "*", "val": "", "test": ""}}, _DRAWN)


def _image_folder(tree: Tree) -> Iterator[Layout]:
    for name, folder in tree.folders.items():
        found = {_SPLIT_OF[one]: one for one in reversed(folder.folders) if one in _SPLIT_OF}
        if "train" in found and _has_classes(tree, joined(name, found["train"])):
            section = {split: joined(name, one) for split, one in found.items() if joined(name, one) != split}
            yield Layout({"image_folder": section}, {} if "val" in found else _DRAWN)
    for name in dict.fromkeys(_level(tree, name) for name in tree.folders if _has_classes(tree, name)):
        yield Layout({"image_folder": {"train": name}}, _DRAWN)


def _level(tree: Tree, name: str) -> str:
    """The folder whose folders are the classes: the one above where several beside this one look alike (`cat/2020`,
    `cat/2021`, `dog/2020`, ..)."""
    above = posixpath.dirname(name) or "."
    alike = [one for one in tree.folders[above].folders if _has_classes(tree, joined(above, one))]
    return above if name != "." and len(alike) > 1 and not any(map(_TOKEN.search, alike)) else name


def _has_classes(tree: Tree, name: str) -> bool:
    """Whether a folder holds class folders: two or more folders with images right in them."""
    below = tree.folders[name].folders if name in tree.folders else []
    filled = [one for one in below if (found := tree.folders.get(joined(name, one))) and found.images]
    return len(filled) > 1 and not any(one.lower() in _NOT_CLASS_FOLDERS or _TOKEN.search(one) for one in filled)


def _labelme(tree: Tree) -> Iterator[Layout]:
    folders = list(dict.fromkeys(posixpath.dirname(path) or "." for path, _ in tree.of_kind("labelme")))
    for template, names in _by_template(folders).items():
        if "train" in names:
            named = {split: template.replace("{split}", name) for split, name in names.items() if split}
            section = {split: path for split, path in named.items() if split != path}
            yield Layout({"labelme": section}, {} if "val" in names else _DRAWN)
    if folders:
        yield Layout({"labelme": {"train": folders[0] if len(folders) == 1 else "."}}, _DRAWN)


def _camvid(tree: Tree) -> Iterator[Layout]:
    for name, folder in tree.folders.items():
        if "trainannot" in folder.folders and "train" in folder.folders:
            yield Layout({"camvid": {"folder": name}}, {} if "valannot" in folder.folders else _DRAWN)


def _yolo(tree: Tree) -> Iterator[Layout]:
    for path, _ in tree.of_kind("yolo"):
        yield Layout({"yolo": {"data": path}})
        yield Layout({"yolo": {"data": path}}, _DRAWN)


def _webdataset(tree: Tree) -> Iterator[Layout]:
    paths = [re.sub(r"\d{2,}(?=\.tar$)", "*", path) for path, _ in tree.of_kind("tar")]
    for template, names in _by_template(sorted(set(paths))).items():
        if "" in names or "train" in names:
            yield Layout({"webdataset": {"tars": template}}, _beside(names))


def _labeled_text(tree: Tree) -> Iterator[Layout]:
    for template, names in _by_template([path for path, _ in tree.of_kind("labels")]).items():
        if "" in names or "train" in names:
            yield Layout({"labeled_text": {"files": template}}, _beside(names))


def _sentences(tree: Tree) -> Iterator[Layout]:
    """Files `train.de` and `train.en`, also as `.gz`: of several languages into English, German first, as Multi30k's
    source is; test files by any name that begins with "test", the first of them."""
    for folder in tree.folders:
        here = tree.root / folder
        languages = {match[1] for path in here.glob("train.*") if (match := _LANGUAGE.fullmatch(path.name))}
        others = sorted(languages - {"en"}, key=lambda language: (language != "de", language))
        pair = [*others[:1], "en"] if "en" in languages else others[:2]
        if len(pair) < 2:
            continue
        roles = dict(zip(("source", "target"), pair, strict=True))
        names = {"train": "train"}
        for split, pattern in (("val", "val.*"), ("val", "dev.*"), ("val", "valid*.*"), ("test", "test*.*")):
            found = sorted({path.name.split(".")[0] for path in here.glob(pattern)})
            whole = [name for name in found if all(_has_text(tree, joined(folder, f"{name}.{end}")) for end in pair)]
            if whole:
                names.setdefault(split, whole[0])
        yield Layout({"sentences": {"files": joined(folder, "{split}.{language}"), "languages": roles}}, _beside(names))


def _has_text(tree: Tree, path: str) -> bool:
    return tree.has(path) or tree.has(f"{path}.gz")


def _video_segments(tree: Tree) -> Iterator[Layout]:
    """A file of segments a class, and a folder of videos whose names may begin with their split, `video_{split}_`."""
    annotations = dict.fromkeys(posixpath.dirname(path) or "." for path, _ in tree.of_kind("segments"))
    for folder, (videos, found) in itertools.product(annotations, tree.folders.items()):
        section = {"videos": videos, "annotations": folder}
        for start, names in _starts(found.videos).items():
            if "train" not in names and names.keys() >= {"val", "test"}:  # THUMOS trains on its validation videos
                names = {"train": names["val"], "val": names["test"]}
            if "train" in names:
                yield Layout({"video_segments": {**section, "names": start}}, _beside(names))
        if found.videos:
            yield Layout({"video_segments": section}, _DRAWN)


def _starts(videos: list[str]) -> dict[str, dict[str, str]]:
    """What names begin with, up to their split and the signs behind it, as a template -> the split's name by split."""
    starts: dict[str, dict[str, str]] = {}
    for name in videos:
        if (token := _TOKEN.search(name)) is not None:
            signs = re.split("[A-Za-z0-9]", name[token.end() :], maxsplit=1)[0]
            starts.setdefault(f"{name[: token.start()]}{{split}}{signs}", {})[_SPLIT_OF[token[0]]] = token[0]
    return starts


def _word_images(tree: Tree) -> Iterator[Layout]:
    for kind, layout, first in (("words", "lines", _FIRST_PATH), ("mmocr", "mmocr", _IMG_PATH)):
        contents = dict(tree.of_kind(kind))
        for template, names in _by_template(list(contents)).items():
            if (images := _images_of(tree, template, names, contents, first)) is not None:
                section = {"layout": layout, "lists": template, "images": images}
                yield Layout({"word_images": section}, _beside(names))
    for folder in dict.fromkeys(posixpath.dirname(path) or "." for path, _ in tree.of_kind("text_beside")):
        yield Layout({"word_images": {"layout": "beside", "lists": "", "images": folder}}, _DRAWN)


_FINDERS: dict[str, Callable[[Tree], Iterator[Layout]]] = {
    "coco": _coco,
    "visual7w": _visual7w,
    "karpathy": _karpathy,
    "vqa": _vqa,
    "image_folder": _image_folder,
    "labelme": _labelme,
    "camvid": _camvid,
    "yolo": _yolo,
    "webdataset": _webdataset,
    "labeled_text": _labeled_text,
    "sentences": _sentences,
    "video_segments": _video_segments,
    "word_images": _word_images,
}
