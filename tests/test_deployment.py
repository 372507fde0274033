"""Manifests for Kubernetes and Docker Compose are what their programs take, and the gateway takes what they hold."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from apigw.config.load import load
from apigw.process.rules import RULES

ROOT = Path(__file__).resolve().parents[1]
MANIFESTS = sorted((ROOT / "contrib/kubernetes").glob("*.yaml"))
VERSION = "1.37"
EXTENSIONS = ("Kustomization", "ServiceMonitor")
"""Kinds that are not Kubernetes' own, and have no schema there."""


def _documents() -> list[Any]:
    return [document for file in MANIFESTS for document in yaml.safe_load_all(file.read_text())]


def _one(kind: str) -> Any:
    (found,) = [document for document in _documents() if document["kind"] == kind]
    return found


@pytest.mark.parametrize("document", _documents(), ids=lambda document: document["kind"])
def test_kubernetes_takes_the_manifests(document: Any) -> None:
    """Each is valid by the schema of its kind, without fields that the kind does not have."""
    if document["kind"] not in EXTENSIONS:
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_all_manifests_are_applied() -> None:
    """What is in the directory is in the kustomization."""
    assert sorted(_one("Kustomization")["resources"]) == [
        file.name for file in MANIFESTS if file.name != "kustomization.yaml"
    ]


def test_the_autoscaler_alone_says_how_many() -> None:
    """Each `kubectl apply` would else set the number back to that of the Deployment, in the busiest hour, too."""
    assert _one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == _one("Deployment")["metadata"]["name"]
    assert "replicas" not in _one("Deployment")["spec"]


def test_kubectl_takes_the_directory() -> None:
    """``kubectl apply -k`` would send each manifest."""
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is not installed")
    made = subprocess.run([program, "kustomize", MANIFESTS[0].parent], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    kinds = [document["kind"] for document in yaml.safe_load_all(made.stdout)]
    assert sorted(kinds) == sorted(each["kind"] for each in _documents() if each["kind"] != "Kustomization")


def test_the_gateway_takes_the_configmap(tmp_path: Path) -> None:
    """The configuration in the ConfigMap is good, as it is mounted."""
    for name, text in _one("ConfigMap")["data"].items():
        (tmp_path / name).write_text(text)
    gateway = load(str(tmp_path), {}, RULES).gateway
    assert gateway.watch_files
    container = _one("Deployment")["spec"]["template"]["spec"]
    assert container["terminationGracePeriodSeconds"] > gateway.drain_delay + gateway.drain_timeout
    ports = {each["name"]: each["containerPort"] for each in container["containers"][0]["ports"]}
    assert [listen.endpoint for listen in gateway.listen] == [f"tcp:{ports['http']}"]
    assert gateway.admin == f"tcp:{ports['admin']}"


def test_what_selects_pods_selects_the_gateways() -> None:
    """Deployment, Service, budget and policy mean the same pods, by one label."""
    labels = _one("Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [document["spec"]["selector"] for document in _documents() if document["kind"] == "Service"]
    selectors += [_one(kind)["spec"]["selector"]["matchLabels"] for kind in ("Deployment", "PodDisruptionBudget")]
    selectors.append(_one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"])
    assert selectors == [labels] * 5


def test_compose_names_what_is_there() -> None:
    """Files that are mounted or built exist, and who depends on another names it."""
    folder = ROOT / "contrib/docker"
    document = yaml.safe_load((folder / "compose.yaml").read_text())
    for service in document["services"].values():
        for volume in service.get("volumes", ()):
            assert (folder / volume.split(":")[0]).resolve().exists()
        assert set(service.get("depends_on", ())) <= document["services"].keys()
        assert {each["source"] for each in service.get("configs", ())} <= document["configs"].keys()
    assert (folder / document["services"]["gateway"]["build"]["context"] / "setup.py").exists()


def test_prometheus_of_compose_asks_by_address() -> None:
    """The admin listener refuses names that the configuration does not have: Prometheus looks the gateway up."""
    document = yaml.safe_load((ROOT / "contrib/docker/compose.yaml").read_text())
    (job,) = yaml.safe_load(document["configs"]["prometheus"]["content"])["scrape_configs"]
    admin = document["services"]["gateway"]["environment"]["APIGW_ADMIN"]
    found = {"names": ["gateway"], "type": "A", "port": int(admin.removeprefix("tcp:"))}
    assert job == {"job_name": "apigw", "dns_sd_configs": [found]}
