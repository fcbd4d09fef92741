"""The published archives that `origin: download` can fetch, and its settings."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from contracts.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One published file. `checksum` is "md5:..." or "sha256:...", None where none is certain (the size is checked).

    It is extracted below the data set's folder, in `folder`.
    """

    url: str
    size: int | None
    checksum: str | None
    folder: str = ""

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


# The COCO host has no valid TLS certificate for its name, so its URLs are http; the checksums protect the content.
_COCO = "http://images.cocodataset.org"
_VOC = "https://thor.robots.ox.ac.uk/pascal/VOC"
_VQA = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa"

# Sizes and md5 of COCO: cocodataset.org's own files (S3 headers); md5 of VOC: torchvision.datasets.voc; sha256 of VQA
# v2: ParlAI's vqa_v2 task.
ARCHIVES: dict[str, Archive] = {
    "coco_train2017": Archive(
        url=f"{_COCO}/zips/train2017.zip", size=19336861798, checksum="md5:cced6f7f71b7629ddf16f17bbcfab6b2"
    ),
    "coco_val2017": Archive(
        url=f"{_COCO}/zips/val2017.zip", size=815585330, checksum="md5:442b8da7639aecaf257c1dceb8ba8c80"
    ),
    "coco_annotations2017": Archive(
        url=f"{_COCO}/annotations/annotations_trainval2017.zip",
        size=252907541,
        checksum="md5:f4bbac642086de4f52a3fdda2de5fa2c",
    ),
    "coco_train2014": Archive(
        url=f"{_COCO}/zips/train2014.zip", size=13510573713, checksum="md5:0da8c0bd3d6becc4dcb32757491aca88"
    ),
    "coco_val2014": Archive(
        url=f"{_COCO}/zips/val2014.zip", size=6645013297, checksum="md5:a3d79f5ed8d289b7a7554ce06a5782b3"
    ),
    "coco_annotations2014": Archive(
        url=f"{_COCO}/annotations/annotations_trainval2014.zip",
        size=252872794,
        checksum="md5:0a379cfc70b0e71301e0f377548639bd",
    ),
    "voc2007_trainval": Archive(
        url=f"{_VOC}/voc2007/VOCtrainval_06-Nov-2007.tar",
        size=460032000,
        checksum="md5:c52e279531787c972589f7e41ab4ae64",
    ),
    "voc2007_test": Archive(
        url=f"{_VOC}/voc2007/VOCtest_06-Nov-2007.tar", size=451020800, checksum="md5:b6e924de25625d8de591ea690078ad9f"
    ),
    "voc2012_trainval": Archive(
        url=f"{_VOC}/voc2012/VOCtrainval_11-May-2012.tar",
        size=1999639040,
        checksum="md5:6cd6e144f989b92b3379bac3b3de84fd",
    ),
    "vqa_v2_questions_train": Archive(
        url=f"{_VQA}/v2_Questions_Train_mscoco.zip",
        size=7239401,
        checksum="sha256:05a64b6e2582d06d7585f5429674a9a33851878be1bff9f8668cdcf792df611e",
        folder="vqa",
    ),
    "vqa_v2_questions_val": Archive(
        url=f"{_VQA}/v2_Questions_Val_mscoco.zip",
        size=3494929,
        checksum="sha256:e71f6c5c3e97a51d050f28243e262b28cd0c48d11a6b4632d769d30d3f93222a",
        folder="vqa",
    ),
    "vqa_v2_annotations_train": Archive(
        url=f"{_VQA}/v2_Annotations_Train_mscoco.zip",
        size=21708861,
        checksum="sha256:fb101bcefe91422c543c2bb6d70af11eb3119d0ff745ae283d09acdf66250853",
        folder="vqa",
    ),
    "vqa_v2_annotations_val": Archive(
        url=f"{_VQA}/v2_Annotations_Val_mscoco.zip",
        size=10518930,
        checksum="sha256:0caae7c8d1dafd852727f5ac046bc1efca9b72026bd6ffa34fc489f3a7b3291e",
        folder="vqa",
    ),
}


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """`archives` are names of `ARCHIVES`. `mirrors` are URLs of folders that are asked before the
    publisher, by file name."""

    archives: tuple[str, ...]
    mirrors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.archives:
            raise ConfigError("archives is empty", allowed=", ".join(ARCHIVES))
        for name in self.archives:
            if name not in ARCHIVES:
                near = difflib.get_close_matches(name, ARCHIVES, n=1)
                raise ConfigError(
                    "unknown archive",
                    value=name,
                    allowed=", ".join(ARCHIVES),
                    fix=f"did you mean {near[0]!r}?" if near else "use `origin: local` for files of your own",
                )
        for mirror in self.mirrors:
            if not mirror.startswith(("http://", "https://")):
                raise ConfigError("a mirror must be an http(s) URL of a folder", value=mirror)
