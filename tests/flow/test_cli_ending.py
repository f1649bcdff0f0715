"""How commands end: by signals at any time, by closed pipes, by disks that take nothing; alike, and leaving nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.timeout(300)  # processes start slowly on busy cores

RUN = ("run", "synthetic:?seconds=inf&width=160&height=96&fps=4", "--realtime", "--watch", "is it red?")
NULL = ("--mllm", "null", "--allocator", "fixed")
COMMAND = [sys.executable, "-c", "from pipeline.cli.main import main; main()"]


def started(*arguments, cwd, **more):
    scratch = cwd / "scratch"
    scratch.mkdir(exist_ok=True)
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
        **more,
    )


def leavings(folder):
    return list((folder / "scratch").glob("resadapt-*"))


def finished(code, *arguments, cwd, **more):
    """A command that has ended, run behind a piece of `code`."""
    return subprocess.run(
        [sys.executable, "-c", code + COMMAND[2], *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=150, check=False, **more,
    )  # fmt: skip


def types(out):
    return [json.loads(line)["type"].rpartition("stream.")[2] for line in out.splitlines()]


def seen(process, kind):
    """Read lines until there is an event of this type."""
    for line in process.stdout:
        if json.loads(line)["type"].endswith(kind):
            return
    raise AssertionError(process.stderr.read())


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("gaps", [(), (0.0,), (0.05,), (0.05, 0.3)])
def test_a_signal_drains_and_its_repeats_are_the_same_wish(tmp_path, signum, gaps):
    process = started(*RUN, *NULL, "--json", cwd=tmp_path)
    seen(process, "watch.opened")
    process.send_signal(signum)
    for gap in gaps:
        time.sleep(gap)
        process.send_signal(signum)
    out, err = process.communicate(timeout=150)
    assert process.returncode == 0, err
    assert types(out)[-1] == "ended"
    assert leavings(tmp_path) == []


def test_an_ignored_signal_stays_ignored(tmp_path):
    process = started(
        *RUN, *NULL, "--json", cwd=tmp_path, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    seen(process, "watch.opened")
    process.send_signal(signal.SIGHUP)
    seen(process, "watch.cleared")
    process.terminate()
    process.communicate(timeout=150)
    assert process.returncode == 0


SLOW = """
import asyncio, time
from pipeline.mllm.null import NullMLLM
async def start(self):
    print("starting", flush=True)
    await asyncio.to_thread(time.sleep, 3600)
NullMLLM.start = start
from pipeline.cli.main import main
main()
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_model_loads_ends_the_start(tmp_path, signum):
    (tmp_path / "scratch").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *RUN, *NULL],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "scratch")},
    )
    assert process.stdout.readline() == "starting\n"
    process.send_signal(signum)
    process.communicate(timeout=150)
    assert process.returncode == -signum
    assert leavings(tmp_path) == []


STUCK = """
import threading, time
import pipeline.cli.ending as ending
ending.SPARE_S = 0.5
threading.Thread(target=time.sleep, args=(3600,), name="stuck").start()
from pipeline.cli.main import main
main()
"""


def test_what_does_not_end_is_ended_and_named(tmp_path):
    site = {"drain_s": 0.2, "mllm": "null"}
    (tmp_path / "site.yaml").write_text(json.dumps(site))
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, *RUN, *NULL, "-c", "site.yaml", "--json"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    seen(process, "watch.opened")
    process.terminate()
    _, err = process.communicate(timeout=150)
    assert process.returncode == 4
    assert "stuck" in err


def site_file(folder, **more):
    site = {
        "mllm": "null",
        "store": f"sqlite:///{folder}/store.db",
        "sinks": {"journal": f"jsonl:{folder}/events.jsonl"},
        "metrics": {"port": 0},
        "api": {"port": 0},
        "defaults": {"allocator": "fixed", "realtime": True},
        "watches": {"red": {"question": "is it red?"}},
        "streams": {"gate": {"url": "synthetic:?seconds=inf&width=160&height=96&fps=4"}},
    } | more
    (folder / "site.yaml").write_text(json.dumps(site))


def logged(process, event):
    for line in process.stderr:
        if event in line:
            return
    raise AssertionError(f"no {event}")


def test_hangups_are_harmless_while_a_service_starts_and_drains(tmp_path):
    site_file(tmp_path)
    process = started("serve", "-c", "site.yaml", cwd=tmp_path)
    logged(process, "serving")
    for _ in range(3):
        process.send_signal(signal.SIGHUP)
    logged(process, "reloaded")
    process.terminate()
    for _ in range(20):
        if process.poll() is None:
            process.send_signal(signal.SIGHUP)
            time.sleep(0.02)
    process.communicate(timeout=150)
    assert process.returncode == 0


def test_a_hangup_before_a_service_serves_is_heeded_once_it_does(tmp_path):
    site_file(tmp_path, mllm="openai:http://127.0.0.1:1/v1#acme/Qwen3-VL-4B-Instruct")
    process = started("serve", "-c", "site.yaml", cwd=tmp_path)
    logged(process, "waiting_for_mllm")
    process.send_signal(signal.SIGHUP)
    logged(process, "waiting_for_mllm")
    process.terminate()
    process.communicate(timeout=150)
    assert process.returncode == -signal.SIGTERM


def test_a_service_whose_store_is_taken_away_ends_with_a_code(tmp_path):
    site_file(tmp_path)
    process = started("serve", "-c", "site.yaml", cwd=tmp_path)
    logged(process, "serving")
    (tmp_path / "store.db").unlink()
    _, err = process.communicate(timeout=150)
    assert process.returncode == 3
    assert "removed or replaced" in err


@pytest.mark.parametrize(
    "arguments",
    [
        (*RUN, *NULL, "--json"),
        ("--help",),
        ("run", "--help"),
        ("probe", "--json", "clip.mp4"),
        ("check", "-c", "site.yaml"),
    ],
)
def test_a_closed_pipe_ends_every_command_alike(tmp_path, arguments, request):
    site_file(tmp_path)
    if "clip.mp4" in arguments:
        from tests.clips import steady, write

        write(tmp_path / "clip.mp4", steady(2.0))
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=tmp_path,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    os.close(writing)
    os.close(reading)
    _, err = process.communicate(timeout=150)
    assert process.returncode == 141, err
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert list(tmp_path.glob("resadapt-*")) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "synthetic:?seconds=2", "--watch", "x", *NULL),
        ("run", "synthetic:?seconds=2", "--watch", "x", *NULL, "--json"),
        ("--help",),
        ("probe", "--json", "clip.mp4"),
        ("check", "-c", "site.yaml"),
    ],
)
def test_an_output_on_a_full_disk_is_named_in_a_line(tmp_path, arguments):
    site_file(tmp_path)
    if "clip.mp4" in arguments:
        from tests.clips import steady, write

        write(tmp_path / "clip.mp4", steady(2.0))
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=150,
            check=False, env={**os.environ, "TMPDIR": str(tmp_path)},
        )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "the standard output takes nothing more: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert list(tmp_path.glob("resadapt-*/")) == []


def test_a_service_goes_on_though_its_log_is_on_a_full_disk(tmp_path):
    site_file(tmp_path, sinks={"journal": "jsonl:events.jsonl"})
    with open("/dev/full", "w") as full:
        process = subprocess.Popen([*COMMAND, "serve", "-c", "site.yaml"], cwd=tmp_path, stderr=full)
    wait_for(lambda: "watch.cleared" in read(tmp_path / "events.jsonl"))
    process.terminate()
    assert process.wait(60) == 0


def read(file):
    return file.read_text() if file.exists() else ""


def wait_for(holds):
    until_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until_s, "waited in vain"
        time.sleep(0.1)


def test_where_the_working_folder_takes_nothing_the_events_are_kept_and_the_place_is_said(tmp_path):
    frozen = tmp_path / "frozen"
    frozen.mkdir()
    (frozen / "resadapt-events.jsonl").mkdir()  # as good as read-only, for root as well
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    moving = "import shutil\ndef move(*_):\n    raise OSError(30, 'Read-only file system')\nshutil.move = move\n"
    env = {**os.environ, "TMPDIR": str(scratch)}
    done = finished(moving, "run", "synthetic:?seconds=2", "--watch", "x", *NULL, cwd=frozen, env=env)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    (kept,) = scratch.glob("resadapt-*")
    assert f"--store sqlite:///{kept}/run.db" in " ".join(done.stderr.split())
    shutil.rmtree(kept)


def test_without_a_place_for_its_state_a_run_says_what_to_do(tmp_path):
    nowhere = (
        "import tempfile\ndef mkdtemp(*_, **__):\n    raise OSError(28, 'No space left on device')\n"
        "tempfile.mkdtemp = mkdtemp\n"
    )
    done = finished(nowhere, "run", "synthetic:?seconds=2", "--watch", "x", *NULL, cwd=tmp_path)
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert "--store" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_goes_on_after_a_finding_that_nobody_foresaw_and_tries_the_port(tmp_path, unused_tcp_port):
    site_file(tmp_path, metrics={"port": unused_tcp_port})
    fault = "import pipeline.service.doctor as d\ndef broken(*_):\n    raise TypeError('oops')\nd._stream = broken\n"
    done = finished(fault, "check", "-c", "site.yaml", cwd=tmp_path)
    assert done.returncode == 3
    assert "TypeError: oops" in done.stdout
    assert f"can be offered on 127.0.0.1:{unused_tcp_port}" in done.stdout
    serving = started("serve", "-c", "site.yaml", cwd=tmp_path)
    logged(serving, "serving")
    done = finished("", "check", "-c", "site.yaml", cwd=tmp_path)
    serving.terminate()
    serving.communicate(timeout=150)
    assert "a running service offers its metrics" in done.stdout
    assert done.returncode == 0, done.stdout
