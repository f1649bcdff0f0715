"""A real mosquitto of the test's own, on loopback: started, killed and started again, with passwords and TLS.

Needs the program `mosquitto` (Debian package of that name); skips the calling test where it is absent, fails it in CI.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.services import require

PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


def program(name: str = "mosquitto") -> str:
    found = shutil.which(name, path=PATH)
    require(found is not None, f"{name} (Debian: mosquitto) runs an MQTT broker")
    assert found
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Broker:
    """A broker in `folder`; `lines` are more lines of its configuration."""

    folder: Path
    lines: tuple[str, ...] = ()
    tls: bool = False
    port: int = field(default_factory=free_port)
    process: subprocess.Popen | None = None

    @property
    def ca_file(self) -> str:
        return str(self.folder / "ca.pem")

    def start(self) -> None:
        lines = [f"listener {self.port} 127.0.0.1", "persistence true", f"persistence_location {self.folder}/"]
        lines.append("user root")
        lines += self.lines or ("allow_anonymous true",)
        if self.tls:
            _certificates(self.folder)
            lines += [f"cafile {self.ca_file}", f"certfile {self.folder}/cert.pem", f"keyfile {self.folder}/key.pem"]
        (self.folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        with open(self.folder / "mosquitto.log", "ab") as log:
            self.process = subprocess.Popen(
                [program(), "-c", str(self.folder / "mosquitto.conf")], stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, (self.folder / "mosquitto.log").read_text()
                time.sleep(0.05)
        raise AssertionError("mosquitto does not listen")

    def stop(self, kill: bool = False) -> None:
        if self.process:
            self.process.kill() if kill else self.process.terminate()
            self.process.wait(15)
        self.process = None


@contextmanager
def running(folder: Path, *lines: str, tls: bool = False):
    broker = Broker(folder, lines, tls)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def passwords(folder: Path, **users: str) -> tuple[str, ...]:
    """Lines of a broker that asks for user names and passwords."""
    path = folder / "passwords"
    path.touch()
    for name, password in users.items():
        subprocess.run([program("mosquitto_passwd"), "-b", str(path), name, password], check=True, capture_output=True)
    return ("allow_anonymous false", f"password_file {path}")


def _certificates(folder: Path) -> None:
    """An authority, and a certificate of it for 127.0.0.1."""
    if (folder / "ca.pem").exists():
        return
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = _name("test authority")
    ca = _certificate(issuer, issuer, authority.public_key(), authority, ca=True)
    own = _certificate(_name("broker"), issuer, key.public_key(), authority, ca=False)
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (folder / "cert.pem").write_bytes(own.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(subject, issuer, public_key, signer, ca):
    now = datetime.now(UTC)
    hosts = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(hosts, critical=False)
        .sign(signer, hashes.SHA256())
    )


@asynccontextmanager
async def cable(broker: Broker):
    """A way to the broker that can be cut: its port, and a function that cuts whatever goes over it now."""
    writers = []

    async def carry(reader, writer):
        with suppress(ConnectionError, OSError):
            while piece := await reader.read(65_536):
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def plug(reader, writer):
        there, back = await asyncio.open_connection("127.0.0.1", broker.port)
        writers.extend((writer, back))
        await asyncio.gather(carry(reader, back), carry(there, writer))

    def cut():
        for writer in writers:
            writer.transport.abort()
        writers.clear()

    async with await asyncio.start_server(plug, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], cut
        cut()


class Subscriber:
    """What arrives at a broker, and what it has kept: `messages` are (topic, payload, retained), in order."""

    def __init__(self, broker: Broker, user: str | None = None, password: str | None = None) -> None:
        import paho.mqtt.client as mqtt

        self.messages: list[tuple[str, bytes, bool]] = []
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        if user:
            self._client.username_pw_set(user, password)
        if broker.tls:
            self._client.tls_set(ca_certs=broker.ca_file)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_message = lambda client, data, message: self.messages.append(
            (message.topic, message.payload, message.retain)
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        until(self._client.is_connected)

    def of(self, topic: str) -> list[bytes]:
        return [payload for name, payload, _ in self.messages if name == topic]

    def below(self, prefix: str) -> list[bytes]:
        return [payload for name, payload, _ in self.messages if name.startswith(prefix)]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def until(condition, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
