"""The composition: of the form that Compose takes, whole in every profile, and with a site that the service takes."""

import pytest

from pipeline.config.site import load_site
from tests.deploy.tools import DEPLOY, program, read, run

FILE = DEPLOY / "compose.yaml"
COMPOSE = read(FILE)
TARGETS = ("cpu", "cuda", "jetson")
BESIDE = {"kafka", "postgres", "prometheus", "grafana"}


def up(*profiles: str) -> set[str]:
    """The services that start with these profiles."""
    return {
        name
        for name, service in COMPOSE["services"].items()
        if not service.get("profiles") or set(profiles) & set(service["profiles"])
    }


def test_compose_takes_it() -> None:
    checked = run(
        program("check-jsonschema", "pip install check-jsonschema"), "--builtin-schema", "vendor.compose-spec", FILE
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_a_profile_starts_its_service_and_what_it_needs(target: str) -> None:
    assert up(target) == {f"resadapt-{target}", *BESIDE}
    assert up(target, "vllm") == {f"resadapt-{target}", *BESIDE, "vllm"}
    service = COMPOSE["services"][f"resadapt-{target}"]
    assert set(service["depends_on"]) <= up(target)
    assert service["build"]["dockerfile"] == f"deploy/images/{target}.Dockerfile"


def test_without_a_profile_the_broker_alone_starts() -> None:
    assert up() == {"kafka"}


@pytest.mark.parametrize("target", TARGETS)
def test_the_service_can_write_to_its_volume_and_tmp_alone(target: str) -> None:
    service = COMPOSE["services"][f"resadapt-{target}"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [one for one in service["volumes"] if not one.endswith(":ro")] == ["evidence:/var/lib/resadapt"]
    assert "user" not in service  # the image's own


def test_every_image_that_is_pulled_has_a_version() -> None:
    for name, service in COMPOSE["services"].items():
        if "build" in service:
            continue
        image = service["image"].rpartition(":-")[2].rstrip("}")
        registry, _, tag = image.rpartition(":")
        assert "/" in registry, name
        assert tag not in ("", "latest"), name


def test_nothing_is_published_to_other_machines() -> None:
    for service in COMPOSE["services"].values():
        for port in service.get("ports", []):
            assert port.startswith(("127.0.0.1:", "${RESADAPT_PORT:-127.0.0.1:"))


def test_every_file_that_is_mounted_is_there_or_said_to_be_made() -> None:
    mounts = [one.partition(":")[0] for service in COMPOSE["services"].values() for one in service.get("volumes", [])]
    for mount in mounts:
        if mount.startswith("./"):
            assert (DEPLOY / mount).exists(), mount
    for secret in COMPOSE["secrets"].values():
        assert secret["file"].startswith("compose/secrets/")
    assert "secrets/" in (DEPLOY / "compose" / ".gitignore").read_text()


def test_the_site_is_one_and_names_what_stands_beside_it() -> None:
    site = load_site(DEPLOY / "compose" / "site.yaml")
    services, vllm = COMPOSE["services"], COMPOSE["services"]["vllm"]
    assert site.sinks["events"].url.startswith("kafka://kafka:29092/")
    assert "INTERNAL://kafka:29092" in services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert site.store == "postgresql://resadapt:${file:/run/secrets/postgres_password}@postgres/resadapt"
    assert site.mllm.use.startswith("openai:http://mllm:8000/v1#")
    assert vllm["networks"]["default"]["aliases"] == ["mllm"]
    assert site.mllm.use.partition("#")[2] in " ".join(vllm["command"])
    assert (site.api.host, site.metrics.host) == ("0.0.0.0", "0.0.0.0")
    scraped = read(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"]
    assert scraped == [f"resadapt:{site.metrics.port}"]
    assert services["resadapt-cpu"]["networks"]["default"]["aliases"] == ["resadapt"]
    assert services["resadapt-cpu"]["ports"][0].endswith(f":{site.api.port}")
