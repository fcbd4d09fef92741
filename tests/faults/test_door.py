"""The door and the sources under faults of the disk, of the data set's folder and of hostile pictures."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from contracts.errors import DataError
from contracts.raw import RawRecord
from pipeline.ingest.door import DoorConfig, admit
from pipeline.shards.writing import write_shard
from pipeline.system.project import Project
from tests.waiting import PATIENCE_S

# The first SHIM_TIMES calls that open (or read) a file whose path ends in SHIM_PATH fail with SHIM_ERRNO, over all
# processes; SHIM_COUNT is a file with one byte for each.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fails(const char *path, const char *call) {
    const char *end = getenv("SHIM_PATH"), *want = getenv("SHIM_CALL"), *count = getenv("SHIM_COUNT");
    if (!end || !path || strcmp(call, want) || strlen(path) < strlen(end)
        || strcmp(path + strlen(path) - strlen(end), end)) return 0;
    struct stat status;
    if (!stat(count, &status) && status.st_size >= atoll(getenv("SHIM_TIMES"))) return 0;
    FILE *file = fopen(count, "a");
    fputc('x', file);
    fclose(file);
    errno = atoi(getenv("SHIM_ERRNO"));
    return 1;
}
static int fails_fd(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return fails(path, "read");
}
#define OPEN(name) int name(const char *path, int flags, ...) { \
    va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest); \
    if (fails(path, "open")) return -1; \
    return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name))(path, flags, mode); }
OPEN(open)
OPEN(open64)
ssize_t read(int fd, void *data, size_t size) {
    if (fails_fd(fd)) return -1;
    return ((ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read"))(fd, data, size);
}
#define PREAD(name, offset_t) ssize_t name(int fd, void *data, size_t size, offset_t at) { \
    if (fails_fd(fd)) return -1; \
    return ((ssize_t (*)(int, void *, size_t, offset_t))dlsym(RTLD_NEXT, #name))(fd, data, size, at); }
PREAD(pread, off_t)
PREAD(pread64, off64_t)
"""


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("faults of reading are injected by a preloaded C library: this needs Linux and a C compiler")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(folder / "shim.so"), str(folder / "shim.c"), "-ldl"]
    subprocess.run(command, check=True)
    return folder / "shim.so"


@pytest.fixture
def project(tiny_project: Project, tmp_path: Path) -> Project:
    """A copy of the tiny project that may lose half of its records."""
    folder = tmp_path / "project"
    shutil.copytree(tiny_project.root, folder)
    change(Project(folder), lambda document: [d.update(max_quarantined=0.5) for d in document["datasets"].values()])
    return Project(folder)


def change(project: Project, edit: Any) -> None:
    document = yaml.safe_load((project.root / "params.yaml").read_text())
    edit(document)
    (project.root / "params.yaml").write_text(yaml.safe_dump(document))


class Stage:
    """`python -m pipeline.stages shard <dataset>` as a process of its own, perhaps with failing calls."""

    def __init__(self, root: Path, project: Project, dataset: str, **variables: str):
        self.project, self.dataset = project, dataset
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.stages", "shard", dataset],
            cwd=project.root,
            env={**os.environ, "PYTHONPATH": str(root), **variables},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def end(self) -> tuple[int, str]:
        """Exit code and stderr."""
        _, errors = self._process.communicate(timeout=PATIENCE_S)
        return self._process.returncode, errors

    @property
    def quarantined(self) -> list[dict[str, Any]]:
        file = self.project.quarantine(self.dataset)
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    def same_as(self, other: Project) -> bool:
        ours, theirs = self.project.shards(self.dataset), other.shards(self.dataset)
        names = sorted(path.name for path in theirs.iterdir())
        return names == sorted(path.name for path in ours.iterdir()) and all(
            (ours / name).read_bytes() == (theirs / name).read_bytes() for name in names
        )


def failing(shim: Path, count: Path, call: str, path: str, number: int, times: int) -> dict[str, str]:
    return {
        "LD_PRELOAD": str(shim), "SHIM_CALL": call, "SHIM_PATH": path, "SHIM_ERRNO": str(number),
        "SHIM_TIMES": str(times), "SHIM_COUNT": str(count),
    }  # fmt: skip


def some(project: Project, pattern: str) -> Path:
    return sorted((project.root / "data/raw").glob(pattern))[5]


COCO_JSON = "annotations/instances_train2017.json"
TRANSIENT = [
    ("voc", "read", "JPEGImages", errno.EIO),
    ("voc", "open", "JPEGImages", errno.ESTALE),
    ("voc", "read", "Annotations", errno.ETIMEDOUT),
    ("voc", "read", "SegmentationClass", errno.EREMOTEIO),
    ("voc", "read", "ImageSets/Main/train.txt", errno.EIO),
    ("coco", "read", COCO_JSON, errno.ESTALE),
]


def ending(project: Project, dataset: str, where: str) -> str:
    """The end of the path of a file of the data set; of a folder's files one in the middle."""
    if "." in where:
        return where
    return "/".join(some(project, f"{dataset}/**/{where}/*.*").parts[-2:])


def test_an_error_that_passes_changes_nothing(
    root: Path, project: Project, tiny_project: Project, shim: Path, tmp_path: Path
) -> None:
    for position, (dataset, call, where, number) in enumerate(TRANSIENT):
        count, path = tmp_path / str(position), ending(project, dataset, where)
        stage = Stage(root, project, dataset, **failing(shim, count, call, path, number, times=2))
        assert stage.end() == (0, ""), (where, number)
        assert count.stat().st_size == 2, where
        assert stage.same_as(tiny_project)
        assert stage.quarantined == []


LASTING = [
    ("voc", "read", "JPEGImages", errno.EIO),
    ("voc", "read", "Annotations", errno.ESTALE),
    ("coco", "read", COCO_JSON, errno.EIO),
    ("voc", "open", "SegmentationClass", errno.EACCES),
]


def test_an_error_that_stays_stops_the_stage_and_quarantines_nothing(
    root: Path, project: Project, tiny_project: Project, shim: Path, tmp_path: Path
) -> None:
    stages = []
    for position, (dataset, call, where, number) in enumerate(LASTING):  # side by side: each waits for some seconds
        copy = Project(tmp_path / f"project{position}")
        shutil.copytree(project.root, copy.root)
        path = ending(project, dataset, where)
        variables = failing(shim, tmp_path / str(position), call, path, number, times=1_000_000)
        stages.append((Stage(root, copy, dataset, **variables), path, number))
    for stage, path, number in stages:
        code, errors = stage.end()
        assert code == 2
        assert "Traceback" not in errors
        for words in ("this host cannot read", path, socket.gethostname(), os.strerror(number)):
            assert words in errors
        assert ("tried 5 times" in errors) == (number != errno.EACCES)
        assert stage.quarantined == []
        again = Stage(root, stage.project, stage.dataset)  # mended
        assert again.end() == (0, "")
        assert again.same_as(tiny_project)


@pytest.mark.filterwarnings("default")
def test_a_task_of_a_cluster_stops_the_stage_as_well(root: Path, project: Project, shim: Path, tmp_path: Path) -> None:
    change(project, lambda document: document["cluster"].update(engine="ray"))
    path = ending(project, "voc", "JPEGImages")
    variables = failing(shim, tmp_path / "count", "read", path, errno.EIO, times=1_000_000)
    stage = Stage(root, project, "voc", **variables)
    code, errors = stage.end()
    assert code == 2
    assert "DataError: this host cannot read a file of the data set" in errors
    assert path in errors
    assert "Traceback" not in errors
    assert stage.quarantined == []


def test_only_a_file_that_is_not_there_is_missing(root: Path, project: Project) -> None:
    lost = sorted(project.raw("voc").glob("**/JPEGImages/*"))[3]
    lost.unlink()
    stage = Stage(root, project, "voc")
    assert stage.end() == (0, "")
    assert [(line["reason"], line["file"]) for line in stage.quarantined] == [("missing_image", str(lost))]


def records(folder: Path, number: int = 2) -> list[RawRecord]:
    folder.mkdir()
    out = []
    for i in range(number):
        Image.new("RGB", (32, 24), (9, 9, i)).save(folder / f"{i}.jpg")
        out.append(
            RawRecord(key=f"{i}", image_id=i, image=folder / f"{i}.jpg", annotation_file="a", width=32, height=24)
        )
    return out


def test_a_node_without_the_folder_reports_no_missing_image(tmp_path: Path) -> None:
    raws, door = records(tmp_path / "raw"), DoorConfig(root=tmp_path / "raw")
    assert admit(raws[0], [], door).record is not None
    (tmp_path / "raw").rename(tmp_path / "gone")  # while the task runs
    with pytest.raises(DataError, match=f"not on this host(.|\n)*{socket.gethostname()}"):
        admit(raws[1], [], door)
    (tmp_path / "raw").mkdir()  # a mount point without its file system
    for attempt in (lambda: admit(raws[1], [], door), lambda: write_shard([], [], tmp_path, "a.tar", door)):
        with pytest.raises(DataError, match="not on this host"):
            attempt()
    assert list(tmp_path.glob("*.tar")) == []


def test_no_link_leads_out_of_the_data_set(root: Path, project: Project, tmp_path: Path) -> None:
    first, second = sorted(project.raw("voc").glob("**/JPEGImages/*"))[:2]
    shutil.move(first, tmp_path / "elsewhere.jpg")
    first.symlink_to(tmp_path / "elsewhere.jpg")
    second.rename(second.with_suffix(".kept"))
    second.symlink_to(second.with_suffix(".kept").name)  # inside: as good as a file
    stage = Stage(root, project, "voc")
    assert stage.end() == (0, "")
    assert [(line["reason"], line["file"]) for line in stage.quarantined] == [("outside_folder", str(first))]
    change(project, lambda document: document["datasets"]["voc"].update(follow_links=True))
    stage = Stage(root, project, "voc")
    assert stage.end() == (0, "")
    assert stage.quarantined == []


def jpeg(width: int = 480, height: int = 360, **options: object) -> bytes:
    rng = np.random.default_rng(0)
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(out, "JPEG", quality=90, **options)
    return out.getvalue()


def with_size(data: bytes, width: int, height: int) -> bytes:
    """The JPEG with another size in its header."""
    position = 2
    while data[position + 1] not in (0xC0, 0xC2):
        position += 2 + struct.unpack(">H", data[position + 2 : position + 4])[0]
    return data[: position + 5] + struct.pack(">HH", height, width) + data[position + 9 :]


def png(width: int, height: int, num_bytes: int) -> bytes:
    """A grey PNG that inflates to `num_bytes` zeros."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    deflate = zlib.compressobj(9)
    body = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(num_bytes >> 20)) + deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_pictures_that_are_not_what_their_headers_say_are_listed(root: Path, project: Project) -> None:
    images = sorted(project.raw("voc").glob("**/JPEGImages/*"))[:4]
    whole = [image.read_bytes() for image in images]
    images[0].write_bytes(whole[0][: len(whole[0]) // 10 * 9] + b"\xff\xd9")
    images[1].write_bytes(with_size(whole[1], 9000, 9000))
    images[2].write_bytes(with_size(whole[2], 6000, 6000))
    images[3].write_bytes(png(60_000, 60_000, 64 << 20))
    reasons = ["truncated_image", "too_many_pixels", "truncated_image", "too_many_pixels"]
    stage = Stage(root, project, "voc")
    assert stage.end() == (0, "")
    listed = {line["file"]: line["reason"] for line in stage.quarantined}
    assert listed == dict(zip(map(str, images), reasons, strict=True))
    change(project, lambda document: document["shards"].update(max_megapixels=0.001))  # less than any
    stage = Stage(root, project, "voc")
    code, errors = stage.end()
    assert code == 2
    assert "too_many_pixels" in errors


PEAK = """
import pathlib, resource, sys
from contracts.raw import RawRecord
from pipeline.ingest.door import admit
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
image, mask = (pathlib.Path(name) if name else None for name in sys.argv[1:])
good = pathlib.Path(sys.argv[1]).with_name("good.jpg")
record = lambda image, mask=None: RawRecord(key="a", image_id=1, image=image, annotation_file="a", semantic_mask=mask)
assert admit(record(good), []).record is not None
before = peak()
(problem,) = admit(record(image, mask), []).problems
print(problem.reason, peak() - before)
"""


def test_what_a_header_claims_takes_no_memory(root: Path, tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(jpeg())
    cases: dict[str, tuple[bytes, bytes, str]] = {
        "larger than allowed": (with_size(jpeg(), 9999, 9999), b"", "too_many_pixels"),
        "within the limit": (with_size(jpeg(), 7000, 7000), b"", "truncated_image"),
        "progressive": (with_size(jpeg(progressive=True), 7000, 7000), b"", "truncated_image"),
        "a bomb": (png(60_000, 60_000, 256 << 20), b"", "too_many_pixels"),
        "a bomb as mask": (jpeg(), png(60_000, 60_000, 256 << 20), "too_many_pixels"),
        "a mask of another size": (jpeg(), png(7000, 7000, 49 << 20), "mask_size_mismatch"),
    }
    for name, (image, mask, reason) in cases.items():
        (tmp_path / "image").write_bytes(image)
        (tmp_path / "mask").write_bytes(mask)
        command = [sys.executable, "-c", PEAK, str(tmp_path / "image"), str(tmp_path / "mask") if mask else ""]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found, peak_mib = done.stdout.split()
        assert (found, int(peak_mib) < 100) == (reason, True), (name, done.stdout)  # 49 million pixels: 147 MB
