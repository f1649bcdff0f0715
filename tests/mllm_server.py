"""A real HTTP server that speaks the chat completions protocol, and misbehaves on command.

Its model is a hash: P(yes) is a function of all that it is shown and asked, so that the same prompt always gets the
same answer and another one a different answer. A token of text is a word; a picture costs its cells.
"""

import base64
import hashlib
import json
import math
import socket
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

MODEL = "acme/Qwen3-VL-4B-Instruct"
CELL_PX = 32
SPELLED = {"yes": 0.7, " Yes": 0.2, "YES": 0.1}
SPELLED_NO = {"no": 0.7, " No": 0.2, "NO": 0.1}
"""How the mass of yes, and of no, falls on their spellings."""


@dataclass
class Habits:
    """How the server behaves until told otherwise. `share` is that of yes, by the hash if None. `meanwhile` runs before
    each answer; `next` answers instead, once each: a status with headers and a body, or a function that is given the
    handler. `refuse` answers instead wherever it returns something for what was asked.

    `lead` are tokens before each answer, `thinks` those before it for requests that let the model think; `most_top` is
    the most of the likeliest tokens that it shows, and `forbids` are parameters that it does not take.
    """

    models: Mapping[str, str] = field(default_factory=lambda: {MODEL: "/weights/a"})
    answers_as: str | None = None
    key: str | None = None
    logprobs: bool = True
    mass: float = 0.98
    share: float | None = None
    uuids: bool = True
    skips_null: bool = False
    schemas: bool = True
    counts: bool = True
    least_cells: int = 1
    cell_px: int = CELL_PX
    max_model_len: int | None = None
    max_images: int = 1000
    refuse: "Callable[[Prompt], Turn | None]" = lambda prompt: None
    spelled: Mapping[str, float] = field(default_factory=lambda: SPELLED)
    spelled_no: Mapping[str, float] = field(default_factory=lambda: SPELLED_NO)
    lead: Sequence[str] = ()
    thinks: Callable[[dict], Sequence[str]] = lambda request: ()
    most_top: int = 20
    forbids: Collection[str] = ()
    meanwhile: Callable[[], None] = lambda: None
    next: deque["Turn | Callable[[Handler], None]"] = field(default_factory=deque)


@dataclass(frozen=True)
class Turn:
    """A reply other than the usual."""

    status: int
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prompt:
    """What a chat completion holds: the request, its pictures, and the prompt tokens of all."""

    request: dict
    pictures: Sequence[np.ndarray]
    tokens: int


@dataclass
class Asked:
    """A chat completion as it arrived: the request, its headers, the pictures with pixels and those by name only."""

    request: dict
    headers: Mapping[str, str]
    shown: int
    named: int

    @property
    def line(self) -> str:
        return self.request["messages"][-1]["content"][-1]["text"]


class Refusal(Exception):
    """An error reply; `turn` is all of it where that is not usual."""

    def __init__(self, status: int, message: str, turn: Turn | None = None) -> None:
        super().__init__(message)
        self.status, self.turn = status, turn


class MLLMServer(ThreadingHTTPServer):
    """Listens at `url` from its making until `shutdown`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.habits, self.lock = Habits(), threading.Lock()
        self.asked: list[Asked] = []
        self.listed = 0
        self.listing: bytes | None = None  # what is listed instead of the models
        self.stopping = threading.Event()
        self.pictures: dict[str, np.ndarray] = {}
        self.prefixes: set[tuple[str, ...]] = set()
        self.sockets: set[socket.socket] = set()

    def forget(self) -> None:
        """Lose every picture and every prefix, as after a restart."""
        self.pictures.clear()
        self.prefixes.clear()

    def hang_up(self) -> None:
        """Close every connection, as a restart does."""
        for one in list(self.sockets):
            shut_down(one)

    def get_request(self) -> tuple[socket.socket, object]:
        accepted = super().get_request()
        self.sockets.add(accepted[0])
        return accepted

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        self.sockets.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are part of the tests."""

    def complete(self, request: dict, headers: Mapping[str, str]) -> dict:
        """The chat completion."""
        habits = self.habits
        if request["model"] not in habits.models:
            raise Refusal(404, f"The model `{request['model']}` does not exist.")
        self._check_parameters(request)
        parts, tokens, pictures = self._read(request, headers)
        if turn := habits.refuse(Prompt(request, pictures, sum(tokens))):
            raise Refusal(turn.status, "", turn)
        self._check_size(len(pictures), sum(tokens))
        with self.lock:
            keys = [tuple(parts[: count + 1]) for count in range(len(parts))]
            cached = sum(count for key, count in zip(keys, tokens, strict=True) if key in self.prefixes)
            self.prefixes.update(keys[:-1])
        digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()
        usage = {"prompt_tokens": sum(tokens), "completion_tokens": 1}
        usage |= {"prompt_tokens_details": {"cached_tokens": cached} if habits.counts else None}
        return {
            "model": habits.answers_as or request["model"],
            "choices": [self._choice(request, int.from_bytes(digest))],
            "usage": usage,
        }

    def _choice(self, request: dict, number: int) -> dict:
        share = self.habits.share if self.habits.share is not None else 0.02 + 0.96 * number / 2**64
        form = request.get("response_format")
        if form and self.habits.schemas:
            text = json.dumps(made(form["json_schema"]["schema"], number))
        else:
            text = max((self.habits.spelled if share > 0.5 else self.habits.spelled_no).items(), key=lambda x: x[1])[0]
        most = request.get("max_tokens", request.get("max_completion_tokens"))
        text = text[: 4 * most]
        lead = [*self.habits.thinks(request), *([] if form else self.habits.lead)]
        shown = "".join([*lead, text][:most])
        choice: dict = {"message": {"role": "assistant", "content": shown}, "finish_reason": "length"}
        if request.get("logprobs") and self.habits.logprobs:
            top = self._top(share)[: min(request["top_logprobs"], self.habits.most_top)]
            content = [{"token": one, "logprob": -0.01, "top_logprobs": certain(one)} for one in lead]
            content.append({"token": text, "logprob": -0.1, "top_logprobs": top})
            choice["logprobs"] = {"content": content[:most]}
        return choice

    def _top(self, share: float) -> list[dict]:
        mass, habits = self.habits.mass, self.habits
        found = {spelled: part * share * mass for spelled, part in habits.spelled.items()}
        found |= {spelled: part * (1 - share) * mass for spelled, part in habits.spelled_no.items()}
        found["Perhaps"] = 1 - mass
        likeliest = sorted(found.items(), key=lambda one: -one[1])
        return [{"token": token, "logprob": math.log(part), "bytes": None} for token, part in likeliest if part > 0]

    def _check_parameters(self, request: dict) -> None:
        for name in self.habits.forbids:
            if name in request:
                raise Refusal(400, f"Unknown field: {name}")
        if request.get("top_logprobs", 0) > self.habits.most_top:
            raise Refusal(400, "The value is out of range.")

    def _read(self, request: dict, headers: Mapping[str, str]) -> tuple[list[str], list[int], list[np.ndarray]]:
        """The prompt's parts, a picture by the hash of its pixels, the tokens of each, and the pictures."""
        parts, tokens, pixels, shown, named = [], [], [], 0, 0
        with self.lock:
            for message in request["messages"]:
                content = message["content"]
                for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
                    if part["type"] == "text":
                        parts.append(part["text"])
                        tokens.append(len(part["text"].split()))
                        continue
                    if part["image_url"] is None and self.habits.skips_null:
                        continue
                    shown, named = shown + bool(part["image_url"]), named + (not part["image_url"])
                    pixels.append(part)
                    parts.append("picture")
                    tokens.append(0)
            self.asked.append(Asked(request, dict(headers), shown, named))
            places = [place for place, part in enumerate(parts) if part == "picture"]
            pictures = [self._picture(part, index) for index, part in enumerate(pixels)]
            for place, picture in zip(places, pictures, strict=True):
                parts[place] = f"picture {picture.shape} {hashlib.blake2b(picture.tobytes()).hexdigest()}"
                tokens[place] = self._cells(picture)
        return parts, tokens, pictures

    def _picture(self, part: dict, index: int) -> np.ndarray:
        uuid = part.get("uuid")
        if part["image_url"] is None:
            if not self.habits.uuids:
                raise Refusal(400, "image_url: Input should be a valid dictionary")
            if uuid not in self.pictures:
                raise Refusal(400, f"Cache miss for image at index {index} but data is not provided.")
            return self.pictures[uuid]
        scheme, _, data = part["image_url"]["url"].partition(",")
        assert scheme == "data:image/png;base64", scheme
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR_RGB)
        if uuid and self.habits.uuids:
            self.pictures[uuid] = picture
        return picture

    def _cells(self, picture: np.ndarray) -> int:
        rows, columns = (max(1, round(side / self.habits.cell_px)) for side in picture.shape[:2])
        return max(rows * columns, self.habits.least_cells)

    def _check_size(self, images: int, tokens: int) -> None:
        habits = self.habits
        if images > habits.max_images:
            raise Refusal(400, f"At most {habits.max_images} image(s) may be provided in one prompt.")
        if habits.max_model_len and tokens > habits.max_model_len:
            raise Refusal(
                400,
                f"The decoder prompt (length {tokens}) is longer than the maximum model length of"
                f" {habits.max_model_len}. Make sure that `max_model_len` is no smaller.",
            )


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: MLLMServer

    def do_GET(self) -> None:
        self.server.listed += 1
        if self._refuses_key():
            return
        if self.path != "/v1/models":
            self.reply(404, {"detail": "Not Found"})
            return
        if self.server.listing is not None:
            self.reply(200, self.server.listing)
            return
        found = [{"id": name, "object": "model", "root": root} for name, root in self.server.habits.models.items()]
        self.reply(200, {"object": "list", "data": found})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._refuses_key():
            return
        habits = self.server.habits
        habits.meanwhile()
        if habits.next:
            turn = habits.next.popleft()
            if not isinstance(turn, Turn):
                turn(self)
                return
            self.reply(turn.status, turn.body, turn.headers)
            return
        try:
            self.reply(200, self.server.complete(json.loads(body), self.headers))
        except Refusal as error:
            if error.turn:
                self.reply(error.turn.status, error.turn.body, error.turn.headers)
                return
            self.reply(error.status, {"error": {"message": str(error), "code": error.status}})

    def reply(self, status: int, body: object, headers: Mapping[str, str] = {}) -> None:
        written = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(written)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(written)

    def break_off(self) -> None:
        """Begin a reply and close the connection in the middle of it."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"model": ')
        self.wfile.flush()
        self.close_connection = True

    def _refuses_key(self) -> bool:
        key = self.server.habits.key
        if key is None or self.headers.get("Authorization") == f"Bearer {key}":
            return False
        self.reply(401, {"error": {"message": f"Incorrect API key: {self.headers.get('Authorization')}"}})
        return True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def certain(token: str) -> list[dict]:
    """What is shown of a token that nothing else competes with."""
    return [{"token": token, "logprob": -0.01, "bytes": None}]


def shut_down(one: socket.socket) -> None:
    """Shut a connection down in both directions."""
    with suppress(OSError):  # it is closed already
        one.shutdown(socket.SHUT_RDWR)


def made(schema: Mapping, number: int) -> object:
    """A value that follows `schema`, chosen by a number: of the few kinds that the tests ask for."""
    if "enum" in schema:
        return schema["enum"][number % len(schema["enum"])]
    if schema["type"] == "integer":
        return schema.get("minimum", 0) + number % 10
    assert schema["type"] == "object", schema
    return {name: made(inner, number) for name, inner in schema["properties"].items()}


@contextmanager
def serving(port: int = 0) -> Iterator[MLLMServer]:
    """A server that runs in a thread of its own."""
    server = MLLMServer(port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        server.hang_up()
        server.server_close()
        thread.join()
