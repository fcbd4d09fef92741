"""Secrets in urls and messages are hidden; what is no secret stays as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import ConfigError
from contracts.redact import redact

SECRET = "S3cretPW"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://u:S3cretPW@host:5000/x", "http://***@host:5000/x"),
        ("at https://S3cretPW@host, later", "at https://***@host, later"),
        ("http://u:p@S3cretPW@host/", "http://***@host/"),
        ("http://u:p%40S3cretPW%2F@host/", "http://***@host/"),
        ("http://u:a/S3cretPW@host/", "http://***@host/"),
        ("postgresql://u:a/S3cretPW?x#y@host/db", "postgresql://***@host/db"),
        ("mysql+pymysql://u:1/S3cretPW@host/db", "mysql+pymysql://***@host/db"),
        ("s3://AKIAX:ab/S3cretPW+cd/e@bucket/prefix", "s3://***@bucket/prefix"),
        ("('http://u:S3cretPW@host', 'x')", "('http://***@host', 'x')"),
        ("https://h/x?a=b&X-Amz-Signature=S3cretPW&c=d", "https://h/x?a=b&X-Amz-Signature=***&c=d"),
        ("https://h/x?X-Amz-Credential=S3cretPW%2F1", "https://h/x?X-Amz-Credential=***"),
        ("https://h/x?sv=1&sig=S3cretPW", "https://h/x?sv=1&sig=***"),
        ("host=h password=S3cretPW dbname=d", "host=h password=*** dbname=d"),
        ("AWS_SECRET_ACCESS_KEY=S3cretPW", "AWS_SECRET_ACCESS_KEY=***"),
        ("{'password': 'S3cretPW', 'a': 1}", "{'password': '***', 'a': 1}"),
        ('{"aws_secret_access_key": "S3cretPW"}', '{"aws_secret_access_key": "***"}'),
        ("Authorization: Bearer S3cretPWabc", "Authorization: Bearer ***"),
    ],
)
def test_a_secret_is_hidden_and_nothing_else(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////x/mlflow.db",
        "sqlite:////home/a@b/c@d.db",
        "file:///home/a@b/x",
        "C:/x@y",
        "write to a.b@c.org",
        "a@b.png",
        "models:/vqa@champion",
        "http://127.0.0.1:5000/#/models/vqa@champion",
        "http://[::1]:5000/a@b",
        "hdfs://host:9000/a@b",
        "s3://bucket/prefix/a@b",
        "git@github.com:owner/repository",
        "http://h/x?page=2&keys=3",
        "num_tokens=5, the token is wrong: 'abc'",
        "{'tokenizer_x': 3, 'name': 'value'}",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_errors_are_redacted_in_all_their_parts() -> None:
    url = f"postgresql://u:a/{SECRET}@h/db"
    error = ConfigError(f"no {url}", value=url, where=url, allowed=url, fix=url)
    assert SECRET not in f"{error} {error.what} {error.where} {error.allowed} {error.fix} {error!r}"


def test_long_text_takes_no_time_to_speak_of() -> None:
    for text in ("http://" * 3000, "postgresql://a:" * 2000, "&a" * 50_000, '"pass":"' * 10_000, "a.b-" * 50_000):
        redact(text)  # pytest's own timeout would end what is quadratic


DIES = """
import logging, sys, threading
from contracts.redact import redact_tracebacks_and_logs
redact_tracebacks_and_logs()
redact_tracebacks_and_logs()
url = "http://u:" + "S3cret" + "PW@host/"
logging.warning("cannot reach %s", url)
try:
    raise OSError(url)
except OSError:
    logging.exception("gone")
logging.warning("%d that do not fit", "arguments")
def work(): raise RuntimeError(url)
thread = threading.Thread(target=work); thread.start(); thread.join()
raise ValueError(url)
"""


def test_tracebacks_and_logs_of_any_library_are_redacted(root: Path) -> None:
    result = subprocess.run([sys.executable, "-c", DIES], cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    for kind in ("OSError", "RuntimeError", "ValueError"):
        assert f"{kind}: http://***@host/" in result.stderr
    assert "cannot reach http://***@host/" in result.stderr
    assert SECRET not in result.stdout + result.stderr
