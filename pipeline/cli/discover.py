"""`resadapt discover`: cameras on the network, and one of them attached by its name."""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError

from pipeline.cli.output import ScreenColumn, notices, set_up, table
from pipeline.cli.remote import ApiKey, AsJson, Remote, ServiceUnavailable, Url, remote
from pipeline.clock import SystemClock
from pipeline.errors import ConfigError
from pipeline.redact import redact_url, remember
from pipeline.service.cameras import Search, find_cameras, stream_address, stream_named
from pipeline.sources.discovery import LISTEN_S
from pipeline.sources.onvif import FoundCamera

EXAMPLE = "Example: resadapt discover --user viewer --password '${CAMERA_PASSWORD}' --attach front-door --tag dock"
COLUMNS = (
    ScreenColumn("stream", 9, text=True),
    ScreenColumn("codec", 4, text=True),
    ScreenColumn("size", 5, text=True),
    ScreenColumn("fps", 3),
    ScreenColumn("url", 8, text=True),
    ScreenColumn("camera", 2, text=True),
    ScreenColumn("trouble", 7, text=True),
)

_CAMERAS = TypeAdapter(list[FoundCamera])
_TYPED = "${a password that was typed}"


def discover(
    host: Annotated[
        list[str] | None, typer.Option(help="Ask only this one: HOST, HOST:PORT or http://...; may be repeated.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Who asks the cameras.")] = None,
    password: Annotated[
        str | None, typer.Option(help="A reference such as ${CAMERA_PASSWORD} or ${file:PATH}, in single quotes.")
    ] = None,
    prompt: Annotated[bool, typer.Option("--prompt", help="Ask for the password instead.")] = False,
    seconds: Annotated[float, typer.Option(help="How long answers are awaited.")] = LISTEN_S,
    attach: Annotated[
        str | None, typer.Option(help="Attach the stream of this name; a camera's name stands for its main stream.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Its slug; by default the name under which it was found.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="A tag for it; may be repeated.")] = None,
    by_service: Annotated[
        bool, typer.Option("--by-service", help="Let the running service look, from where it is.")
    ] = False,
    url: Url = None,
    key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Find ONVIF cameras on the network, with the streams they have: `main` is the largest picture, `sub` the next.
    A user name and password go, as digests, to every camera that answers; --host asks only those that it names."""
    set_up("error")
    if prompt and (attach or by_service or password):
        raise ConfigError(
            "--prompt: a typed password is neither kept nor sent on; expected --password '${CAMERA_PASSWORD}' with"
            " --attach and --by-service"
        )
    typed = _typed(user) if prompt else None
    search = Search(tuple(host or ()), user, _TYPED if prompt else password, seconds)
    service = remote(url, key, as_json)
    if by_service:
        cameras = _by_service(search, service)
    else:
        cameras = asyncio.run(find_cameras(search, SystemClock(), typed=typed))
    if not cameras:
        raise ServiceUnavailable(
            "no camera answered; where the network lets no multicast through, name one with --host ADDRESS"
        )
    if attach:
        _attach(cameras, attach, {"slug": name, "tags": tag}, search, service)
    elif as_json:
        service.show([asdict(camera) for camera in cameras])
    else:
        _show(cameras)


def _typed(user: str | None) -> str:
    if user is None:
        raise ConfigError("--prompt needs --user: whose password is it?")
    typed = str(typer.prompt(f"Password of {user}", hide_input=True, err=True))
    remember(typed)
    return typed


def _by_service(search: Search, service: Remote) -> list[FoundCamera]:
    body = {"hosts": list(search.hosts), "seconds": search.listen_s}
    body |= {"user": search.user, "password": search.password} if search.user else {}
    found = service.send("POST", "/v1/discover", body)
    try:
        return _CAMERAS.validate_python(found["items"])
    except (ValidationError, KeyError, TypeError):
        raise ServiceUnavailable("the service's answer cannot be read; is it of this version?") from None


def _attach(cameras: list[FoundCamera], wanted: str, own: dict[str, Any], search: Search, service: Remote) -> None:
    camera, stream = stream_named(wanted, cameras)
    about = " ".join(filter(None, (camera.manufacturer, camera.model)))[:200]
    body = {"slug": stream.name, "url": stream_address(stream, search), "display_name": about or None}
    body |= {key: value for key, value in own.items() if value}
    added = service.send("POST", "/v1/streams", {key: value for key, value in body.items() if value})
    shown = redact_url(str(added["spec"]["url"]))
    service.show(added) if service.as_json else table(("attached", "url"), [(added["slug"], shown)])


def _show(cameras: list[FoundCamera]) -> None:
    rows: list[tuple[object, ...]] = []
    for camera in cameras:
        about = " ".join(filter(None, (camera.manufacturer, camera.model))) or camera.address
        for stream in camera.streams:
            size = f"{stream.width}x{stream.height}" if stream.width else ""
            rows.append((stream.name, stream.codec, size, stream.fps, redact_url(stream.url), about, camera.trouble))
        if not camera.streams:
            rows.append((camera.name, "", "", "", "", about, camera.trouble))
    table(COLUMNS, rows)
    notices().print("attach one with: resadapt discover --attach NAME", markup=False, highlight=False)
