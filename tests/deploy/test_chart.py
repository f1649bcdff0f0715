"""The chart: rendered as Helm does, checked against the schemas of Kubernetes, and refused where a value is wrong."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.site import parse_site, read_yaml
from tests.deploy.tools import CHART, DEPLOY, helm, program, run

KUBERNETES = "1.34"
CUSTOM = {"ServiceMonitor", "PrometheusRule", "RayCluster"}
POSTGRESQL = {
    "store": "postgresql://resadapt:${DB_PASSWORD}@db/resadapt",
    "mllm": {"use": "openai:http://vllm:8000/v1#Qwen/Qwen3-VL-8B-Instruct", "max_cache_tokens": 16777216},
    "streams": {"gate": {"url": "rtsp://viewer:${CAMERA_PASSWORD}@10.0.0.7/1"}},
}
SECRETS = {
    "env": [{"name": "CAMERA_PASSWORD", "secret": "cameras", "key": "password"}],
    "files": [{"name": "kafka", "secret": "kafka", "key": "password"}],
}
EVERYTHING: dict[str, Any] = {
    "site": POSTGRESQL,
    "secrets": SECRETS,
    "adminKey": {"secret": "admin"},
    "image": {"repository": "registry.example/resadapt", "digest": "sha256:" + "0" * 64, "pullSecrets": ["pull"]},
    "gpu": {"count": 2, "runtimeClassName": "nvidia"},
    "ingress": {"enabled": True, "tlsSecret": "tls"},
    "serviceMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True},
    "networkPolicy": {"allowFrom": [{"podSelector": {"matchLabels": {"app": "proxy"}}}]},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "podLabels": {"team": "cameras"},
    "podAnnotations": {"note": "x"},
}
FLEET = {**EVERYTHING, "fleet": {"enabled": True, "redis": "redis:6379", "redisPassword": {"secret": "redis"}}}
WAYS = {"default": {}, "everything": EVERYTHING, "fleet": FLEET}


@cache
def rendered(values: str) -> dict[tuple[str, str], dict]:
    """The manifests of a release `site` with these values (JSON), by kind and name."""
    made = run(helm(), "template", "site", CHART, "--namespace", "cameras", "--values", "-", stdin=values)
    assert made.returncode == 0, made.stderr
    found = [one for one in yaml.safe_load_all(made.stdout) if one]
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def chart(values: dict) -> dict[tuple[str, str], dict]:
    return rendered(json.dumps(values))


def pod_of(manifest: dict) -> dict:
    return manifest["spec"]["template"]["spec"] if manifest["kind"] != "Pod" else manifest["spec"]


def pods(manifests: dict[tuple[str, str], dict]) -> dict[str, dict]:
    """The specification of every pod that the manifests make."""
    found = {
        f"{kind} {name}": pod_of(one) for (kind, name), one in manifests.items() if kind in ("Deployment", "Job", "Pod")
    }
    for (kind, name), one in manifests.items():
        if kind == "RayCluster":
            groups = [("head", one["spec"]["headGroupSpec"])]
            groups += [(group["groupName"], group) for group in one["spec"]["workerGroupSpecs"]]
            found |= {f"{kind} {name} {group}": spec["template"]["spec"] for group, spec in groups}
    return found


def refusal(values: dict) -> str:
    made = run(helm(), "template", "site", CHART, "--values", "-", stdin=json.dumps(values))
    assert made.returncode != 0, "it was rendered"
    return made.stderr


def test_helm_finds_nothing_to_complain_about() -> None:
    found = run(helm(), "lint", "--strict", CHART)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("way", WAYS)
def test_kubernetes_takes_the_manifests(way: str, tmp_path: Path) -> None:
    manifests = chart(WAYS[way])
    known = [manifest for (kind, _), manifest in manifests.items() if kind not in CUSTOM]
    known += [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "of-ray"}, "spec": spec}
        for name, spec in pods(manifests).items()
        if name.startswith("RayCluster")
    ]
    file = tmp_path / "manifests.yaml"
    file.write_text(yaml.safe_dump_all(known))
    checked = run(program("kubernetes-validate", "pip install kubernetes-validate"), "--strict", "-k", KUBERNETES, file)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("way", WAYS)
def test_no_pod_may_do_more_than_it_must(way: str) -> None:
    for name, spec in pods(chart(WAYS[way])).items():
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] == 10001, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"] == {
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["limits"]["memory"], name
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounted <= {volume["name"] for volume in spec.get("volumes", [])}, name


@pytest.mark.parametrize("way", ["default", "everything"])
def test_a_store_has_one_owner_which_is_probed(way: str) -> None:
    spec = chart(WAYS[way])["Deployment", "site"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    (container,) = spec["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"api": 8080, "metrics": 9108}
    probes = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert probes == {
        "startupProbe": "/health/startup",
        "livenessProbe": "/health/live",
        "readinessProbe": "/health/ready",
    }


@pytest.mark.parametrize("way", WAYS)
def test_what_selects_pods_finds_them(way: str) -> None:
    manifests = chart(WAYS[way])
    if way == "fleet":
        cluster = manifests["RayCluster", "site"]["spec"]
        labels = {**cluster["headGroupSpec"]["template"]["metadata"]["labels"], "ray.io/node-type": "head"}
    else:
        labels = manifests["Deployment", "site"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        manifests["Service", "site"]["spec"]["selector"],
        manifests["PodDisruptionBudget", "site"]["spec"]["selector"]["matchLabels"],
        manifests["NetworkPolicy", "site"]["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
    for kind, name in manifests:
        if kind in ("Job", "Pod"):
            one = manifests[kind, name]
            theirs = one["spec"]["template"]["metadata"]["labels"] if kind == "Job" else one["metadata"]["labels"]
            assert not selectors[0].items() <= theirs.items()


@pytest.mark.parametrize("way", WAYS)
def test_the_site_is_one_that_the_service_takes_and_listens_where_it_is_asked(way: str, tmp_path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(chart(WAYS[way])["ConfigMap", "site"]["data"]["site.yaml"])
    site = parse_site(read_yaml(file))
    assert (site.api.host, site.api.port) == ("0.0.0.0", 8080)
    assert (site.metrics.host, site.metrics.port) == ("0.0.0.0", 9108)
    if way != "default":
        assert site.mllm.max_cache_tokens == 16777216  # type: ignore[union-attr]


def test_secrets_come_by_reference_only() -> None:
    manifests = chart(EVERYTHING)
    assert "Secret" not in {kind for kind, _ in manifests}
    for name, spec in pods(manifests).items():
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            if container["name"] == "health":
                continue
            (variable,) = container["env"]
            assert variable["valueFrom"]["secretKeyRef"] == {"name": "cameras", "key": "password"}, name
            mounts = {one["mountPath"]: one for one in container["volumeMounts"]}
            assert mounts["/run/secrets/kafka"]["subPath"] == "password"
            assert mounts["/run/secrets/kafka"]["readOnly"] is True


def test_an_edited_site_restarts_the_pod() -> None:
    notes = [
        chart({"site": {**POSTGRESQL, "drain_s": drain_s}})["Deployment", "site"]["spec"]["template"]["metadata"][
            "annotations"
        ]
        for drain_s in (10, 20)
    ]
    assert notes[0]["resadapt/site"] != notes[1]["resadapt/site"]


def test_the_schema_is_migrated_before_an_upgrade_where_the_store_is_a_server() -> None:
    assert not [name for kind, name in chart({}) if kind == "Job"]
    manifests = chart(EVERYTHING)
    job = manifests["Job", "site-migrations"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    (container,) = pod_of(job)["containers"]
    assert container["args"] == ["store", "migrate", "-c", "/etc/resadapt/site.yaml"]
    site = manifests["ConfigMap", "site-migrations"]
    assert int(site["metadata"]["annotations"]["helm.sh/hook-weight"]) < int(
        job["metadata"]["annotations"]["helm.sh/hook-weight"]
    )
    assert site["data"] == manifests["ConfigMap", "site"]["data"]


def test_the_first_key_is_put_into_the_store_before_the_service_starts() -> None:
    assert "initContainers" not in pod_of(chart({})["Deployment", "site"])
    (first,) = pod_of(chart(EVERYTHING)["Deployment", "site"])["initContainers"]
    assert first["args"][:2] == ["key", "create"]
    assert first["args"][first["args"].index("--given") + 1] == "/run/admin-key/key"


def test_a_gpu_is_a_limit() -> None:
    (container,) = pod_of(chart(EVERYTHING)["Deployment", "site"])["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert pod_of(chart(EVERYTHING)["Deployment", "site"])["runtimeClassName"] == "nvidia"
    assert "nvidia.com/gpu" not in pod_of(chart({})["Deployment", "site"])["containers"][0]["resources"]["limits"]


def test_an_image_is_named_by_its_digest_where_there_is_one() -> None:
    (container,) = pod_of(chart(EVERYTHING)["Deployment", "site"])["containers"]
    assert container["image"] == "registry.example/resadapt@sha256:" + "0" * 64
    assert pod_of(chart({})["Deployment", "site"])["containers"][0]["image"] == "resadapt:cpu"


def test_prometheus_and_grafana_get_the_files_that_are_tested() -> None:
    manifests = chart(EVERYTHING)
    rules = yaml.safe_load((DEPLOY / "prometheus" / "resadapt.rules.yml").read_text())
    assert manifests["PrometheusRule", "site"]["spec"] == rules
    dashboard = manifests["ConfigMap", "site-dashboard"]["data"]["resadapt.json"]
    assert json.loads(dashboard) == json.loads((DEPLOY / "grafana" / "resadapt.json").read_text())
    monitor = manifests["ServiceMonitor", "site"]["spec"]
    service = manifests["Service", "site"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]


def test_a_fleet_is_a_ray_cluster_in_place_of_the_deployment() -> None:
    manifests = chart(FLEET)
    assert ("Deployment", "site") not in manifests
    cluster = manifests["RayCluster", "site"]["spec"]
    assert cluster["gcsFaultToleranceOptions"] == {
        "redisAddress": "redis:6379",
        "redisPassword": {"valueFrom": {"secretKeyRef": {"name": "redis", "key": "password"}}},
    }
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    ray, service = head["template"]["spec"]["containers"]
    assert ray["name"] == "ray"
    assert service["args"] == ["serve", "-c", "/etc/resadapt/site.yaml", "--cluster", "auto"]
    shared = {"/tmp/ray", "/dev/shm"}
    assert all(shared <= {one["mountPath"] for one in container["volumeMounts"]} for container in (ray, service))
    (group,) = cluster["workerGroupSpecs"]
    assert json.loads(json.loads(group["rayStartParams"]["resources"].strip("'"))) == {"streams": 16}
    assert manifests["Service", "site"]["spec"]["selector"]["ray.io/node-type"] == "head"


def test_a_fleet_on_a_file_is_refused() -> None:
    assert "needs a store that many machines share" in refusal({"fleet": {"enabled": True}})
    assert "existingSite" in refusal({"fleet": {"enabled": True}, "site": POSTGRESQL, "existingSite": "mine"})


@pytest.mark.parametrize(
    ("where", "values"),
    [
        ("/gpu/count", {"gpu": {"count": "two"}}),
        ("/service/port", {"service": {"port": 99999}}),
        ("/image/digest", {"image": {"digest": "latest"}}),
        ("/secrets/env/0", {"secrets": {"env": [{"name": "CAMERA", "value": "hunter2"}]}}),
        ("/secrets/files/0/name", {"secrets": {"files": [{"name": "../etc", "secret": "x", "key": "y"}]}}),
        ("/site/store", {"site": {"store": 7}}),
        ("/persistence/size", {"persistence": {"size": "large"}}),
        ("/pdb/enabled", {"pdb": {"enabled": "yes please"}}),
        ("/fleet/workers/0/streams", {"fleet": {"workers": [{"name": "a", "replicas": 1, "streams": 0}]}}),
        ("/fleet/workers", {"fleet": {"workers": []}}),
        ("/fleet/redis", {"fleet": {"redis": "redis"}}),
        ("replicas", {"replicas": 3}),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_a_value_of_the_wrong_kind_is_refused_by_its_name(where: str, values: dict) -> None:
    said = refusal(values)
    assert where in said
    assert "hunter2" not in said


def test_every_value_has_a_place_in_the_schema() -> None:
    schema, values = (
        json.loads((CHART / "values.schema.json").read_text()),
        yaml.safe_load((CHART / "values.yaml").read_text()),
    )

    def undescribed(value: object, described: dict, at: str) -> list[str]:
        if not isinstance(value, dict) or "properties" not in described or at == ".site":
            return []
        missing = [f"{at}.{key}" for key in value if key not in described["properties"]]
        inner = [undescribed(value[key], described["properties"].get(key, {}), f"{at}.{key}") for key in value]
        return missing + [one for found in inner for one in found]

    assert undescribed(values, schema, "") == []
    assert schema["additionalProperties"] is False
