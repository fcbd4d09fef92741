"""`sightline promote`: make a registered version champion that the gate refused. Who did it and why stays with it."""

from __future__ import annotations

import datetime
import getpass
import re
import socket
import subprocess
from typing import Any

from contracts.errors import ConfigError
from pipeline.system.project import Project
from pipeline.tracking import names
from pipeline.tracking.announce import announce
from pipeline.tracking.connection import answering, connect
from pipeline.tracking.naming import ALIAS, FORCED

_VERSION = re.compile(r"models:/([^/@]+)/(\d+)")


def promote(project: Project, given: str, *, why: str, by: str | None = None) -> dict[str, Any]:
    """Move `champion` to a version.

    Args:
        given: `name/version`, or another way to name one version.
        by: who answers for it; None: git's user, else this machine's.

    Returns:
        model, version and the version's new tags: the champion before it, who, why and what the gate had said.

    Raises:
        ConfigError: no such version, no reason given, it reigns already, or it failed the check of its answers: that
            one is broken, whatever its score.
    """
    chosen = names.exact(project, names.named(project, given))
    match = _VERSION.fullmatch(chosen.uri or "")
    if match is None:
        raise ConfigError("this names no version of a registered model", value=given, allowed="name/version")
    if not why.strip():
        raise ConfigError("no reason is given", value=why, where="--why", fix="say why, in a sentence: it is kept")
    model, number = match.groups()
    client = connect(names.tracking_config(project), project.tracking_root)
    with answering(client.tracking_uri):
        known = {str(version.version): version for version in client.search_model_versions(f"name = '{model}'")}
        if number not in known:
            raise ConfigError(
                "no such version", value=f"{model}/{number}", allowed=", ".join(sorted(known, key=int)) or "none",
                fix="`sightline ui` shows them",
            )  # fmt: skip
        version = known[number]
        before = client.get_registered_model(model).aliases.get(ALIAS)
        if str(before) == number:
            raise ConfigError("this version is champion already", value=f"{model}/{number}", fix="nothing to do")
        if version.tags.get("checked") != "yes":
            raise ConfigError(
                "this version cannot be champion: it does not answer as its checkpoint does",
                value=version.tags.get("reason", "it was never checked"), where=f"{model}/{number}",
                fix=f"register it anew: `dvc repro --force --single-item register@{model}`",
            )  # fmt: skip
        said = version.tags.get("reason", "")
        who, day = by or _user(), datetime.datetime.now(datetime.UTC).date().isoformat()
        reason = f"promoted by {who} on {day}: {why.strip()} (the gate had said: {said})"
        tags = {"decision": "champion", "reason": reason, FORCED: who, "forced_why": why.strip(), "forced_on": day}
        tags["previous_champion"] = "none" if before is None else str(before)
        for key, value in tags.items():
            client.set_model_version_tag(model, number, key, value)
        client.set_registered_model_alias(model, ALIAS, number)
        announce(client, client.get_model_version(model, number), _document(version.tags), True, reason)
    return {"model": model, "version": number, **tags}


def _document(tags: dict[str, str]) -> dict[str, Any]:
    """Of a metrics document, what a version knows."""
    metric, constant = tags["metric"], tags.get("constant", "none")
    return {
        "metric": metric,
        "value": float(tags["metric_value"]),
        "constant": {} if constant == "none" else {metric: float(constant)},
        "split": "val",
        "dataset": tags["dataset"],
        "manifest_digest": tags["manifest_digest"],
    }


def _user() -> str:
    try:
        told = subprocess.run(["git", "config", "user.email"], capture_output=True, text=True, check=False).stdout
    except OSError:
        told = ""
    return told.strip() or f"{getpass.getuser()}@{socket.gethostname()}"
