"""The files of deploy/ are well-formed, of these versions, and name options and commands that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TEXT, COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
FLAG = {"type": "boolean"}


def closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """An object with these keys and no others: a misspelt one is what Kubernetes would drop in silence."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def each(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


# Parts of KubeRay's CRDs (ray.io/v1, 1.5.1) and of Kubernetes' PodSpec: what these files use of them, and its types.
TEXTS = {"type": "object", "additionalProperties": TEXT}
AMOUNTS = closed(("cpu", "memory"), **{"cpu": TEXT, "memory": TEXT, "nvidia.com/gpu": TEXT})
CONTAINER = closed(
    ("name", "image", "resources"),
    name=TEXT,
    image=TEXT,
    env=each(closed(("name", "value"), name=TEXT, value=TEXT)),
    envFrom=each(closed(secretRef=closed(("name",), name=TEXT, optional=FLAG))),
    ports=each(closed(("containerPort",), name={"type": "string", "maxLength": 15}, containerPort=COUNT)),
    resources=closed(("limits", "requests"), limits=AMOUNTS, requests=AMOUNTS),
    volumeMounts=each(closed(("name", "mountPath"), name=TEXT, mountPath=TEXT)),
)
VOLUME = closed(("name",), name=TEXT, persistentVolumeClaim=closed(("claimName",), claimName=TEXT))
POD = closed(
    ("containers",),
    securityContext=closed(runAsNonRoot=FLAG, runAsUser=COUNT, fsGroup=COUNT),
    containers=each(CONTAINER),
    volumes=each(VOLUME),
)
TEMPLATE = closed(("spec",), spec=POD)
WORKERS = closed(
    ("groupName", "template", "rayStartParams", "minReplicas", "maxReplicas"),
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    rayStartParams=TEXTS,
    template=TEMPLATE,
)
CLUSTER = closed(
    ("rayVersion", "headGroupSpec"),
    rayVersion=TEXT,
    authOptions=closed(("mode",), mode={"enum": ["token"]}),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=closed(idleTimeoutSeconds=COUNT),
    headGroupSpec=closed(("template",), rayStartParams=TEXTS, template=TEMPLATE),
    workerGroupSpecs=each(WORKERS),
)
JOB = closed(
    ("entrypoint", "rayClusterSpec"),
    entrypoint=TEXT,
    runtimeEnvYAML=TEXT,
    backoffLimit=COUNT,
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    rayClusterSpec=CLUSTER,
)


def manifest(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return closed(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=closed(name=TEXT, generateName=TEXT),
        spec=spec,
    )


KUBERAY = {"cluster.yaml": manifest("RayCluster", CLUSTER), "job.yaml": manifest("RayJob", JOB)}
SERVICE = closed(
    ("image", "command", "networks"),
    image=TEXT,
    command=TEXT,
    environment=TEXTS,
    secrets=each(TEXT),
    ports=each({"type": "string", "pattern": r"^127\.0\.0\.1:\d+:\d+$"}),  # nobody else reaches them
    volumes=each(TEXT),
    shm_size=TEXT,
    depends_on=each(TEXT),
    restart={"enum": ["on-failure"]},
    networks=each(TEXT),
)
COMPOSE = closed(
    ("name", "services", "networks"),
    name=TEXT,
    services={"type": "object", "additionalProperties": SERVICE},
    networks={"type": "object"},
    volumes={"type": "object"},
    secrets={"type": "object", "additionalProperties": closed(("file",), file=TEXT)},
)


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


@pytest.mark.parametrize("name", sorted(KUBERAY))
def test_kuberay_takes_them(name):
    document = read(f"kuberay/{name}")
    jsonschema.validate(document, KUBERAY[name])
    cluster = document["spec"].get("rayClusterSpec", document["spec"])
    (locked,) = re.findall(r"^ray(?:\[[^]]*\])?==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert cluster["rayVersion"] == locked, "the image has this one"
    assert cluster["authOptions"] == {"mode": "token"}, "whoever reaches it without one runs code on it"
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        claims = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == claims
            assert container["resources"]["limits"] == container["resources"]["requests"]
        check_options([f"--{name}" for name in group["rayStartParams"]])


def test_a_misspelt_key_would_be_seen():
    document = read("kuberay/cluster.yaml")
    document["spec"]["workerGroupSpecs"][0]["minReplica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="minReplica"):
        jsonschema.validate(document, KUBERAY["cluster.yaml"])


def test_compose_opens_nothing_and_starts_what_there_is():
    document = read("compose.yaml")
    jsonschema.validate(document, COMPOSE)
    for name, service in document["services"].items():
        program, *words = shlex.split(service["command"])
        if program == "ray":
            assert service["environment"]["RAY_AUTH_MODE"] == "token", name
            check_options(word.split("=")[0] for word in words if word.startswith("--"))
        else:
            asked = [sys.executable, "-m", "mlflow", "server", "--help"]
            told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
            assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[a-z-]+", told))


def check_options(names: Any) -> None:
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    assert set(names) <= known, "options of `ray start`"


def test_the_slurm_script_is_one():
    script = (DEPLOY / "slurm.sh").read_text()
    subprocess.run(["bash", "-n", DEPLOY / "slurm.sh"], check=True)
    lines = [line for line in script.replace("\\\n", "").splitlines() if "ray start" in line or "common=(" in line]
    starting = " ".join(line.split("ray start")[-1] for line in lines)
    check_options(re.findall(r"(?<=[\s(])--[a-z-]+", starting))
    assert "RAY_AUTH_MODE=token" in script


def test_the_image_has_what_is_locked():
    text = (DEPLOY / "Containerfile").read_text()
    assert "--no-deps -r /tmp/requirements.txt" in text
    assert "USER ray" in text.split("requirements.txt\nRUN")[-1]
    assert "RAY_AUTH_MODE=token" in text
