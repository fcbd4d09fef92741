"""What a url or a message may show of itself: never a password, a key or a token.

`SightlineError` redacts its whole text; whatever else prints or stores a url redacts it by this function. Of two ways
to err, hiding too much is the better one, but ordinary paths, addresses and `models:/name@alias` stay readable.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

MASK = "***"
_SCHEME = r"\b[a-z][a-z0-9+.-]{0,30}://"
# scheme://user:password@host, and scheme://token@host: what stands before the @ is a secret as often as a name.
_USERINFO = re.compile(rf"(?P<scheme>{_SCHEME})[^\s/?#'\"<>]{{0,2000}}@", re.IGNORECASE)
# SQLAlchemy takes a password with / ? # in it, and the secret keys of object stores have slashes. A number and one of
# these after the colon is a port, unless this is a database's url: http://host:5000/a@b has no password.
_PORT = r"\d{1,5}(?:[/?#]|$)"
_DATABASE = r"\b(?:postgres(?:ql)?|mysql|mariadb|mssql|oracle)(?:\+\w+)?://"
_ODD_PASSWORD = re.compile(
    rf"(?P<scheme>{_DATABASE}(?=[^\s:/@]{{0,200}}:)|{_SCHEME}(?!\[)(?=[^\s:/@]{{0,200}}:(?!{_PORT})))[^\s'\"<>]{{0,2000}}@",
    re.IGNORECASE,
)
_NAME = (
    r"[\w.-]{0,40}(?:pass(?:word|wd|phrase)|pwd|secret|token|signature|credential|api[_-]?key|access[_-]?key(?:[_-]?id)?)"
    r"[\w.-]{0,40}"
)
# ?key=value and &key=value of a query; `password=...` of a connection string or an environment; 'password': '...' of a
# mapping that is printed.
_QUERY = re.compile(rf"(?P<name>[?&;](?:{_NAME}|pass|sig|key|auth)=)[^\s&;#'\"<>]+", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"(?P<name>(?:\b|_)(?:password|passwd|secret|token|secret_access_key|access_key_id)\s?=\s?)[^\s&;,'\"<>]+",
    re.IGNORECASE,
)
_MAPPED = re.compile(rf"(?P<name>(?P<quote>['\"]){_NAME}(?P=quote)\s?:\s?(?P<mark>['\"])).+?(?P=mark)", re.IGNORECASE)
_BEARER = re.compile(r"(?P<name>\b(?:Bearer|Basic)\s+)[A-Za-z0-9+/=._~-]{8,}")


def redact(text: str) -> str:
    """`text` with the secret parts of all urls and assignments in it replaced by `***`."""
    if "://" in text:
        text = _USERINFO.sub(rf"\g<scheme>{MASK}@", text)
        text = _ODD_PASSWORD.sub(rf"\g<scheme>{MASK}@", text)
    for pattern in (_QUERY, _ASSIGNED, _BEARER):
        text = pattern.sub(rf"\g<name>{MASK}", text)
    return _MAPPED.sub(rf"\g<name>{MASK}\g<mark>", text)


def redact_tracebacks_and_logs() -> None:
    """From now on what this process dies of, and what any library logs, is redacted as well."""
    sys.excepthook = _tell
    threading.excepthook = lambda arguments: _tell(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def make_redacted(*arguments: Any, **keywords: Any) -> logging.LogRecord:
        record = make(*arguments, **keywords)
        with contextlib.suppress(TypeError, ValueError):  # arguments that do not fit: logging itself complains later
            if (shown := redact(text := record.getMessage())) != text:
                record.msg, record.args = shown, ()
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = redact("".join(traceback.format_exception(*record.exc_info))).rstrip()
        return record

    make_redacted.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_redacted)


def _tell(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if not issubclass(kind, SystemExit):  # by which a thread may end without a word
        print(redact("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr, flush=True)
