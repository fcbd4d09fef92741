"""What a url or a message may show of itself: never a password, a key or a token.

`SightlineError` redacts its whole text; whatever else prints or stores a url redacts it by this function.
"""

from __future__ import annotations

import re

MASK = "***"
# scheme://user:password@host, and scheme://token@host: what stands before the @ is a secret as often as a name.
_USERINFO = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^\s/?#'\"<>]*@", re.IGNORECASE)
# ?key=value and &key=value of a query, and `password=...` of a libpq connection string.
_SECRET = (
    r"[\w.-]*(?:pass(?:word|wd)?|pwd|secret|token|signature|credential|api[_-]?key|access[_-]?key(?:[_-]?id)?)[\w.-]*"
    r"|sig|key|auth"
)
_QUERY = re.compile(rf"(?P<name>[?&;](?:{_SECRET})=)[^\s&;#'\"<>]+", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"(?P<name>\b(?:AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN|MLFLOW_TRACKING_PASSWORD|MLFLOW_TRACKING_TOKEN"
    r"|RAY_AUTH_TOKEN|password|passwd|secret|token)\s*=\s*)[^\s&;,'\"<>]+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(?P<name>\b(?:Bearer|Basic)\s+)[A-Za-z0-9+/=._~-]{8,}")


def redact(text: str) -> str:
    """`text` with the secret parts of all urls and assignments in it replaced by `***`."""
    text = _USERINFO.sub(rf"\g<scheme>{MASK}@", text)
    for pattern in (_QUERY, _ASSIGNED, _BEARER):
        text = pattern.sub(rf"\g<name>{MASK}", text)
    return text
