"""The part of a site file about the API and about the history that the store keeps."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.config.values import STRICT, Count, Positive


@dataclass(frozen=True, slots=True, config=STRICT)
class ApiConfig:
    """The address of the API that `serve` offers; port 0 turns it off. `cert_file` and `key_file` make it HTTPS.

    What comes by the API may lead to public and private addresses, and to more where `allow_addresses` says so
    (`loopback`, a network, `file:/FOLDER`); it may refer to the secrets that a pattern of `allow_secrets` names. A
    client (by key, else by address) may ask `rate_per_s` times a second, `burst` at once; a body has at most
    `max_body_kib`, a recording on which a watch is tried `max_recording_mib`; `max_connections` are open at a time,
    `max_listeners` of them for events or pictures.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    cert_file: str | None = None
    key_file: str | None = None
    allow_addresses: tuple[str, ...] = ()
    deny_addresses: tuple[str, ...] = ()
    allow_secrets: tuple[str, ...] = ("CAMERA_*", "SINK_*", "file:/run/secrets/*")
    max_body_kib: Annotated[int, Field(ge=1, le=65_536)] = 1024
    max_recording_mib: Annotated[int, Field(ge=0, le=65_536)] = 512
    rate_per_s: Positive = 50.0
    burst: Count = 200
    max_connections: Annotated[int, Field(ge=1, le=65_536)] = 512
    max_listeners: Annotated[int, Field(ge=1, le=65_536)] = 256


@dataclass(frozen=True, slots=True, config=STRICT)
class KeepConfig:
    """The bounds of the history that the store keeps, in days and MiB. Events that a sink has still to get stay in any
    case."""

    events_days: Positive = 30.0
    events_mib: Annotated[int, Field(ge=0)] = 256
    answers_days: Positive = 2.0
    answers_mib: Annotated[int, Field(ge=0)] = 512
