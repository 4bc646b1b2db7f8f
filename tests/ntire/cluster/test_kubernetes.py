"""The RayJob for Kubernetes: a form that the cluster accepts, and parts that fit together."""

import os
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.main import get_command

from ntire.cli import app
from ntire.cluster import text_of
from tests.conftest import ROOT

CRD = Path(os.environ.get("NTIRE_RAYJOB_CRD", "none"))


@pytest.fixture
def job():
    return yaml.safe_load(text_of("kubernetes"))


def pods(job):
    spec = job["spec"]
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    return [spec["submitterPodTemplate"], *(group["template"] for group in groups)]


def test_every_pod_is_one_by_the_schema_of_kubernetes(job):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for number, template in enumerate(pods(job)):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod{number}"}, "spec": template["spec"]}
        kubernetes_validate.validate(pod, "1.32", strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(pod | {"spec": {**pod["spec"], "volume": []}}, "1.32", strict=True)


@pytest.mark.skipif(not CRD.is_file(), reason="NTIRE_RAYJOB_CRD names no ray.io_rayjobs.yaml of KubeRay")
def test_the_manifest_is_a_rayjob_by_kuberays_own_schema(job):
    versions = yaml.safe_load(CRD.read_text())["spec"]["versions"]
    schema = next(one["schema"]["openAPIV3Schema"] for one in versions if one["name"] == "v1")
    checker = jsonschema.Draft202012Validator(closed(schema))
    assert [f"{error.json_path}: {error.message}" for error in checker.iter_errors(job)] == []
    assert list(checker.iter_errors(job | {"spec": {**job["spec"], "entrypoints": "x"}}))


def closed(schema):
    """The same where fields that it does not name are errors, as the API server's strict validation has it."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        found = {"type": ["integer", "string"]}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_ended:
        # Kinds, versions and names of objects are not in the schema of every part.
        found["additionalProperties"] = False
        if "spec" in schema["properties"] and "metadata" in schema["properties"]:
            found["properties"]["metadata"] = {"type": "object"}
    return found


def test_what_it_runs_is_a_command_of_ntire(job):
    program, name, *words = job["spec"]["entrypoint"].split()
    assert program == "ntire"
    made = get_command(app).get_command(None, name).make_context(name, words)
    assert made.params["engine"] == "ray"


def test_gpus_volumes_image_and_version_fit_together(job):
    ray = job["spec"]["rayClusterSpec"]
    (group,) = ray["workerGroupSpecs"]
    containers = [container for template in pods(job) for container in template["spec"]["containers"]]
    assert len({container["image"] for container in containers}) == 1
    worker = group["template"]["spec"]["containers"][0]["resources"]
    for amounts in worker.values():
        assert amounts["nvidia.com/gpu"] == group["rayStartParams"]["num-gpus"] == "1"
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for template in pods(job)[1:]:
        there = {volume["name"] for volume in template["spec"]["volumes"]}
        assert there == {mount["name"] for one in template["spec"]["containers"] for mount in one["volumeMounts"]}
    pinned = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert ray["rayVersion"] == pinned[1]
    assert "AS cluster" in (ROOT / "Dockerfile").read_text()
