"""What is a url, and which urls of a tracking store can be used here, told before MLflow fails on them."""

from __future__ import annotations

from importlib.util import find_spec

from contracts.errors import ConfigError

# What SQLAlchemy imports for a database whose url names no driver.
_DRIVERS = {"postgresql": "psycopg2", "mysql": "MySQLdb", "mssql": "pyodbc"}
_ALLOWED = "sqlite:///FILE, http://..., https://..., postgresql+pg8000://USER:PASSWORD@HOST/DATABASE"


def is_url(text: str) -> bool:
    """Whether a text names a place in a store, not on this machine."""
    return "://" in text


def check_tracking_uri(uri: str, *, where: str) -> None:
    """Raise ConfigError if MLflow cannot keep runs at `uri`: no url, a plain folder, or a database without its driver.

    Args:
        where: the key or environment variable that asks for it.
    """
    scheme, colon, rest = uri.partition("://")
    if uri.startswith(("file:", "./", "/", "~")):
        raise ConfigError("MLflow no longer keeps runs in plain files", value=uri, where=where, allowed=_ALLOWED)
    if not (scheme and colon and rest) and uri != "databricks":
        raise ConfigError("not the url of a tracking store", value=uri, where=where, allowed=_ALLOWED)
    database, _, driver = scheme.partition("+")
    if database in _DRIVERS and not _installed(driver or _DRIVERS[database]):
        raise ConfigError(
            f"the driver {driver or _DRIVERS[database]} of this database is not installed",
            value=uri,
            where=where,
            allowed=_ALLOWED,
            fix="pip install pg8000 (the extra `postgres` of pyproject.toml), and write postgresql+pg8000://"
            if database == "postgresql"
            else f"install {driver or _DRIVERS[database]}",
        )


def _installed(module: str) -> bool:
    return module.isidentifier() and find_spec(module) is not None
