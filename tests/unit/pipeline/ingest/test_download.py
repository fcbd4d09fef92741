"""Downloads against a real HTTP server on this machine that misbehaves on request."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError, DataError
from pipeline.ingest import download
from pipeline.settings.archives import ARCHIVES, Archive, DownloadConfig
from pipeline.settings.params import Params
from pipeline.stages.fetch import fetch as fetch_stage
from pipeline.system.project import Project
from tests.zips import zip_bytes


@dataclass
class Server:
    """What the server has and how it behaves; what it was asked."""

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    etag: str | None = '"v1"'
    break_after: list[int] = field(default_factory=list)  # bytes sent by the next answers before the line is cut
    statuses: list[int] = field(default_factory=list)  # of the next answers
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append((request.path, wanted))
        status = self.statuses.pop(0) if self.statuses else 200
        body = self.files.get(request.path)
        if status != 200 or body is None:
            request.send_response(404 if body is None else status)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start = 0
        same = request.headers.get("If-Range") in (None, self.etag)
        if wanted and self.ranges and same:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                request.send_response(416)
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if self.etag:
            request.send_header("ETag", self.etag)
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        rest = body[start:]
        if self.break_after:
            rest = rest[: self.break_after.pop(0)]
            request.close_connection = True
        request.wfile.write(rest)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.port = http.server_address[1]
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield state
        http.shutdown()
        thread.join()


CONTENT = zip_bytes(train2017__a=bytes(range(256)) * 400, train2017__b=b"b" * 1000)


@pytest.fixture
def archive(server: Server, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """A published archive on the server; no waiting between attempts."""
    server.files["/zips/train.zip"] = CONTENT
    made = Archive(
        url=f"{server.url}/zips/train.zip",
        size=len(CONTENT),
        checksum=f"md5:{hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}",
    )
    monkeypatch.setitem(ARCHIVES, "train", made)
    monkeypatch.setattr(download, "BACKOFF_S", 0.0)
    return made


def get(tmp_path: Path, **options: Any) -> None:
    download.download(["train"], tmp_path / "raw", tmp_path / "cache", **options)


def assert_extracted(tmp_path: Path) -> None:
    assert (tmp_path / "raw/train2017/a").read_bytes() == bytes(range(256)) * 400
    assert (tmp_path / "raw/train2017/b").read_bytes() == b"b" * 1000
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["train.zip"]


def test_fetch_verify_extract_and_never_again(tmp_path: Path, server: Server, archive: Archive) -> None:
    get(tmp_path)
    assert_extracted(tmp_path)
    assert server.asked == [("/zips/train.zip", None)]
    (tmp_path / "cache/train.zip").unlink()
    (tmp_path / "raw/train2017/b").unlink()
    get(tmp_path)  # the marker says that it is done
    assert len(server.asked) == 1
    (tmp_path / "raw/.train.done").unlink()
    get(tmp_path)
    assert_extracted(tmp_path)


@pytest.fixture
def project(tmp_path: Path, archive: Archive) -> Project:
    """Its data set `coco` is the archive, fetched once; the archive itself is gone."""
    made = Project(tmp_path / "project")
    fetch_again(made, "train")
    (made.root / "state/downloads/train.zip").unlink()
    return made


def fetch_again(project: Project, *archives: str) -> None:
    entry = {"origin": "download", "input": "pipeline/ingest/download.py", "download": {"archives": [*archives]}}
    params = Params({"datasets": {"coco": {**entry, "sources": {"coco": {}}}}, "runs": {}})
    fetch_stage(project, params, "coco")


def test_the_stage_fetches_only_what_is_not_there(
    project: Project, server: Server, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = zip_bytes(val2017__c=b"c", train2017__b=b"B" * 1000)  # it has one of the first one's names, too
    server.files["/zips/val.zip"] = body
    monkeypatch.setitem(ARCHIVES, "val", Archive(url=f"{server.url}/zips/val.zip", size=len(body), checksum=None))
    raw = project.raw("coco")
    cache = project.root / "cache"
    os.link(raw / "train2017/b", cache)  # as DVC does
    fetch_again(project, "train", "val")
    assert [path for path, _ in server.asked] == ["/zips/train.zip", "/zips/val.zip"]
    assert (raw / "train2017/a").read_bytes() == bytes(range(256)) * 400 and (raw / "val2017/c").read_bytes() == b"c"
    assert (raw / "train2017/b").read_bytes() == b"B" * 1000
    assert cache.read_bytes() == b"b" * 1000, "nothing is written through a link"
    fetch_again(project, "train")
    assert not (raw / "val2017").exists(), "what is not asked for any more is not left behind"
    assert len(server.asked) == 3


def test_what_has_lost_a_file_is_fetched_again(project: Project, server: Server) -> None:
    """As `sightline heal` leaves it."""
    lost = project.raw("coco") / "train2017/b"
    lost.unlink()
    fetch_again(project, "train")
    assert lost.read_bytes() == b"b" * 1000 and len(server.asked) == 2


def test_a_new_checksum_fetches_again(
    tmp_path: Path, server: Server, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(tmp_path)
    server.files["/zips/train.zip"] = body = zip_bytes(train2017__a=b"new")
    checksum = f"sha256:{hashlib.sha256(body).hexdigest()}"
    monkeypatch.setitem(ARCHIVES, "train", replace(archive, size=len(body), checksum=checksum))
    get(tmp_path)
    assert (tmp_path / "raw/train2017/a").read_bytes() == b"new"


def test_a_cached_archive_is_extracted_again_without_the_network(
    tmp_path: Path, server: Server, archive: Archive
) -> None:
    get(tmp_path)
    server.files.clear()
    download.download(["train"], tmp_path / "other", tmp_path / "cache")
    assert (tmp_path / "other/train2017/b").read_bytes() == b"b" * 1000


def test_goes_on_where_the_line_broke(tmp_path: Path, server: Server, archive: Archive) -> None:
    server.break_after = [50_000, 10_000]
    get(tmp_path)
    assert_extracted(tmp_path)
    assert [wanted for _, wanted in server.asked] == [None, "bytes=50000-", "bytes=60000-"]


def test_goes_on_in_the_next_run(
    tmp_path: Path, server: Server, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.break_after = [50_000]
    server.statuses = [200] + [503] * download.ATTEMPTS
    with pytest.raises(DataError, match=r"(?s)cannot fetch train.*503.*goes on from there"):
        get(tmp_path)
    assert (tmp_path / "cache/train.zip.part").stat().st_size == 50_000
    server.asked.clear()
    get(tmp_path)
    assert_extracted(tmp_path)
    assert server.asked == [("/zips/train.zip", "bytes=50000-")]


def test_a_server_that_ignores_ranges_starts_over(tmp_path: Path, server: Server, archive: Archive) -> None:
    server.ranges = False
    server.break_after = [50_000]
    get(tmp_path)
    assert_extracted(tmp_path)
    assert [wanted for _, wanted in server.asked] == [None, "bytes=50000-"]


def test_a_file_that_changed_meanwhile_starts_over(tmp_path: Path, server: Server, archive: Archive) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/train.zip.part").write_bytes(b"old" * 1000)
    state = {"url": archive.url, "etag": '"v0"'}
    (tmp_path / "cache/train.zip.part.json").write_text(str(state).replace("'\"v0\"'", '"\\"v0\\""').replace("'", '"'))
    get(tmp_path)
    assert_extracted(tmp_path)
    assert server.asked == [("/zips/train.zip", "bytes=3000-")]  # If-Range made the server answer 200


def test_without_a_checksum_a_part_of_unknown_origin_is_not_continued(
    tmp_path: Path, server: Server, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHIVES, "train", replace(archive, checksum=None))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/train.zip.part").write_bytes(b"old" * 1000)
    get(tmp_path)
    assert_extracted(tmp_path)
    assert server.asked == [("/zips/train.zip", None)]


def test_a_part_longer_than_the_file_starts_over(
    tmp_path: Path, server: Server, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHIVES, "train", replace(archive, size=None))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/train.zip.part").write_bytes(b"x" * (len(CONTENT) + 10))
    get(tmp_path)
    assert_extracted(tmp_path)
    assert [wanted for _, wanted in server.asked] == [f"bytes={len(CONTENT) + 10}-", None]


def test_a_complete_part_is_only_verified(tmp_path: Path, server: Server, archive: Archive) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/train.zip.part").write_bytes(CONTENT)
    get(tmp_path)
    assert_extracted(tmp_path)
    assert server.asked == []


def test_wrong_bytes_are_deleted_and_a_retry_starts_clean(tmp_path: Path, server: Server, archive: Archive) -> None:
    server.files["/zips/train.zip"] = CONTENT[:-1] + b"?"
    with pytest.raises(DataError, match=r"(?s)wrong content: md5 is [0-9a-f]{32}, published is [0-9a-f]{32}"):
        get(tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []
    assert not (tmp_path / "raw").exists()
    server.files["/zips/train.zip"] = CONTENT
    get(tmp_path)
    assert_extracted(tmp_path)


def test_a_file_of_another_size_is_refused_before_it_is_fetched(
    tmp_path: Path, server: Server, archive: Archive
) -> None:
    server.files["/zips/train.zip"] = b"<html>sign in</html>"
    with pytest.raises(DataError, match=r"has 20 bytes, published are"):
        get(tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []


def test_busy_servers_are_asked_again_and_dead_ones_are_not(tmp_path: Path, server: Server, archive: Archive) -> None:
    server.statuses = [503, 429, 500]
    get(tmp_path)
    assert len(server.asked) == 4
    server.statuses = [403]
    with pytest.raises(DataError, match="HTTP 403"):
        download.download(["train"], tmp_path / "raw2", tmp_path / "cache2")
    assert len(server.asked) == 5


def test_an_attempt_counts_only_without_progress(tmp_path: Path, server: Server, archive: Archive) -> None:
    server.break_after = [5000] * 15
    get(tmp_path)
    assert_extracted(tmp_path)


def test_back_off_grows_and_obeys_the_server(
    tmp_path: Path, server: Server, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(download, "BACKOFF_S", 1.0)
    monkeypatch.setattr("pipeline.system.backoff.time.sleep", waits.append)
    server.statuses = [503] * download.ATTEMPTS
    with pytest.raises(DataError, match="gave up after"):
        get(tmp_path)
    assert waits == [1.0, 2.0, 4.0, 8.0]
    assert download._seconds("7") == 7.0
    assert download._seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_mirrors_come_first_and_the_publisher_last(tmp_path: Path, server: Server, archive: Archive) -> None:
    server.files["/good/train.zip"] = CONTENT
    get(tmp_path, mirrors=[f"{server.url}/none/", f"{server.url}/good"])
    assert [path for path, _ in server.asked] == ["/none/train.zip", "/good/train.zip"]
    download.download(["train"], tmp_path / "raw2", tmp_path / "cache2", mirrors=[f"{server.url}/none"])
    assert [path for path, _ in server.asked[2:]] == ["/none/train.zip", "/zips/train.zip"]


def test_a_server_that_is_not_there(
    tmp_path: Path, server: Server, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHIVES, "train", replace(archive, url="http://127.0.0.1:9/train.zip"))
    with pytest.raises(DataError, match=r"(?s)cannot fetch train.*ConnectionError.*mirror"):
        get(tmp_path)


def test_no_space_left_stops_before_any_byte(
    tmp_path: Path, server: Server, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHIVES, "train", replace(archive, size=1 << 60))
    with pytest.raises(DataError, match="disk space"):
        get(tmp_path)
    assert server.asked == []


def test_progress_counts_whole_mebibytes() -> None:
    steps: list[int] = []
    bar = download._MebiBytes(steps.append)
    for done in (100, 1 << 20, (1 << 20) + 5, 5 << 20, 0):
        bar.set(done)
    assert steps == [1, 4, -5]  # back to 0 where a server starts over


def test_configuration_mistakes() -> None:
    with pytest.raises(ConfigError, match="did you mean 'coco_val2017'"):
        DownloadConfig(archives=("coco_val217",))
    with pytest.raises(ConfigError, match="empty"):
        DownloadConfig(archives=())
    with pytest.raises(ConfigError, match="mirror"):
        DownloadConfig(archives=("coco_val2017",), mirrors=("/home/me",))


def test_the_table_is_well_formed() -> None:
    lengths = {"md5": 32, "sha256": 64}
    for name, known in ARCHIVES.items():
        assert known.size is not None, name
        assert known.checksum is not None, name
        kind, _, digest = known.checksum.partition(":")
        assert len(digest) == lengths[kind], name
        assert int(digest, 16) > 0, name
    assert len({known.url for known in ARCHIVES.values()}) == len(ARCHIVES)


# extraction
