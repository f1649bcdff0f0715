"""The systemd unit: of the form that systemd takes, and shut in as far as a service of cameras can be."""

import re
from pathlib import Path

import pytest

from tests.deploy.tools import DEPLOY, program, run

UNIT = DEPLOY / "systemd" / "resadapt.service"
DEVICES = DEPLOY / "systemd" / "resadapt-devices.conf"
MOST_EXPOSED = 2.5
"""Of systemd's scale from 0 to 10; up to 2.5 a service counts as OK, above 7 as exposed."""


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is there."""
    (tmp_path / "resadapt").write_text("#!/bin/sh\n")
    (tmp_path / "resadapt").chmod(0o755)
    file = tmp_path / "resadapt.service"
    file.write_text(UNIT.read_text().replace("/opt/resadapt/bin/resadapt", str(tmp_path / "resadapt")))
    return file


def test_systemd_takes_it(unit: Path) -> None:
    found = run(program("systemd-analyze", "systemd"), "verify", "--man=no", "--recursive-errors=no", unit)
    assert (found.returncode, found.stderr) == (0, "")


def test_systemd_takes_it_with_devices(unit: Path, tmp_path: Path) -> None:
    folder = tmp_path / "resadapt.service.d"
    folder.mkdir()
    (folder / "devices.conf").write_text(DEVICES.read_text())
    found = run(program("systemd-analyze", "systemd"), "verify", "--man=no", "--recursive-errors=no", unit)
    assert (found.returncode, found.stderr) == (0, "")


def test_it_is_shut_in(unit: Path) -> None:
    found = run(program("systemd-analyze", "systemd"), "security", "--offline=true", "--no-pager", unit)
    exposure = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", found.stdout)[1])  # type: ignore[index]
    assert exposure <= MOST_EXPOSED, found.stdout


def test_it_has_time_to_drain_and_is_not_started_again_with_wrong_settings() -> None:
    settings = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))
    assert int(settings["TimeoutStopSec"]) > 2 * 20  # twice drain_s
    assert settings["RestartPreventExitStatus"] == "2"
    assert settings["ExecStart"].endswith("resadapt serve -c /etc/resadapt/site.yaml")
