"""An ONVIF camera of our own: a device and a media service over HTTP, and answers to WS-Discovery over UDP."""

import base64
import hashlib
import re
import socket
import struct
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GROUP = "239.255.255.250"
SOAP = '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body>{}</s:Body></s:Envelope>'
NOT_AUTHORIZED = (
    "<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>ter:NotAuthorized</s:Value></s:Subcode></s:Code>"
    "<s:Reason><s:Text>Sender not Authorized</s:Text></s:Reason></s:Fault>"
)


@dataclass
class Device:
    """`profiles` are (token, width, height, stream URL); `replies` stand for what a request would be answered with."""

    name: str = "Front Door"
    user: str | None = None
    password: str | None = None
    profiles: list = field(default_factory=list)
    replies: dict = field(default_factory=dict)
    xaddrs: str | None = None
    media: str | None = None
    media2: bool = False
    services: bool = True
    delay_s: float = 0.0
    digest: bool = False
    port: int = 0
    probe_port: int = 0
    requests: list = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/onvif/device_service"

    def answer(self, action: str, body: str) -> tuple[int, bytes]:
        time.sleep(self.delay_s)
        if action in self.replies:
            found = self.replies[action]
            return 200, found if isinstance(found, bytes) else SOAP.format(found).encode()
        if action != "GetSystemDateAndTime" and self.user and not self.digest and not self._is_login(body):
            return 400, SOAP.format(NOT_AUTHORIZED).encode()
        made = getattr(self, action, None)
        if made is None or (action == "GetServices" and not self.services):
            return 500, SOAP.format("<s:Fault><s:Reason><s:Text>no such action</s:Text></s:Reason></s:Fault>").encode()
        return 200, SOAP.format(made(body)).encode()

    def _is_login(self, body: str) -> bool:
        found = {
            name: re.search(rf"<\w+:{name}(?:\s[^>]*)?>([^<]*)<", body)
            for name in ("Username", "Password", "Nonce", "Created")
        }
        if not all(found.values()):
            return False
        user, digest, nonce, created = (match.group(1) for match in found.values())
        whole = base64.b64decode(nonce) + created.encode() + self.password.encode()
        return user == self.user and base64.b64encode(hashlib.sha1(whole).digest()).decode() == digest

    def GetSystemDateAndTime(self, body):
        now = time.gmtime()
        return (
            f"<r><UTCDateTime><Time><Hour>{now.tm_hour}</Hour><Minute>{now.tm_min}</Minute><Second>{now.tm_sec}</Second></Time>"
            f"<Date><Year>{now.tm_year}</Year><Month>{now.tm_mon}</Month><Day>{now.tm_mday}</Day></Date></UTCDateTime></r>"
        )

    def GetDeviceInformation(self, body):
        return (
            "<GetDeviceInformationResponse><Manufacturer>Acme</Manufacturer><Model>C-100</Model>"
            "<FirmwareVersion>1.2</FirmwareVersion><SerialNumber>0815</SerialNumber></GetDeviceInformationResponse>"
        )

    def GetServices(self, body):
        version = "ver20" if self.media2 else "ver10"
        where = self.media or f"http://127.0.0.1:{self.port}/onvif/media"
        return (
            "<GetServicesResponse><Service><Namespace>http://www.onvif.org/ver10/device/wsdl</Namespace>"
            f"<XAddr>{self.address}</XAddr></Service><Service>"
            f"<Namespace>http://www.onvif.org/{version}/media/wsdl</Namespace><XAddr>{where}</XAddr></Service>"
            "</GetServicesResponse>"
        )

    def GetCapabilities(self, body):
        return f"<Capabilities><Media><XAddr>http://127.0.0.1:{self.port}/onvif/media</XAddr></Media></Capabilities>"

    def GetProfiles(self, body):
        return "".join(self._profile(*one[:3]) for one in self.profiles)

    def _profile(self, token, width, height):
        tag = "VideoEncoder" if self.media2 else "VideoEncoderConfiguration"
        encoder = (
            f"<{tag}><Encoding>H264</Encoding><Resolution><Width>{width}</Width><Height>{height}</Height></Resolution>"
            f"<RateControl><FrameRateLimit>25</FrameRateLimit></RateControl></{tag}>"
        )
        inner = f"<Configurations>{encoder}</Configurations>" if self.media2 else encoder
        return f'<Profiles token="{token}"><Name>{token}</Name>{inner}</Profiles>'

    def GetStreamUri(self, body):
        token = re.search(r"<ProfileToken>([^<]*)<", body).group(1)
        (uri,) = [one[3] for one in self.profiles if one[0] == token]
        uri = uri.replace("&", "&amp;")
        inner = f"<Uri>{uri}</Uri>" if self.media2 else f"<MediaUri><Uri>{uri}</Uri></MediaUri>"
        return f"<GetStreamUriResponse>{inner}</GetStreamUriResponse>"

    def match(self, probe: bytes, relates_to: str | None = None) -> bytes:
        asked = re.search(rb"<a:MessageID>([^<]*)<", probe)
        relates = relates_to or (asked.group(1).decode() if asked else "")
        name = self.name.replace(" ", "%20")
        return (
            f"<e:Envelope xmlns:e='http://www.w3.org/2003/05/soap-envelope'><e:Header><RelatesTo>{relates}</RelatesTo>"
            "</e:Header><e:Body><ProbeMatches><ProbeMatch><EndpointReference><Address>urn:uuid:1</Address>"
            "</EndpointReference><Types>dn:NetworkVideoTransmitter</Types>"
            f"<Scopes>onvif://www.onvif.org/type/video_encoder onvif://www.onvif.org/name/{name}</Scopes>"
            f"<XAddrs>{self.xaddrs or self.address}</XAddrs></ProbeMatch></ProbeMatches></e:Body></e:Envelope>"
        ).encode()


@contextmanager
def serving(device: Device, answers=None):
    """The device on loopback. `answers(device, probe)` are the datagrams that answer a probe."""
    server = ThreadingHTTPServer(("", 0), _handler(device))
    server.daemon_threads = True
    device.port = server.server_port
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("", 0))
    device.probe_port = udp.getsockname()[1]
    loopback = struct.pack("=4s4sI", socket.inet_aton(GROUP), b"\0" * 4, socket.if_nametoindex("lo"))
    udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, loopback)
    udp.settimeout(0.2)
    ending = threading.Event()

    def listen():
        while not ending.is_set():
            try:
                probe, asker = udp.recvfrom(65_536)
            except TimeoutError:
                continue
            for one in answers(device, probe) if answers else [device.match(probe)]:
                udp.sendto(one, asker)

    threads = [threading.Thread(target=server.serve_forever, daemon=True), threading.Thread(target=listen, daemon=True)]
    for thread in threads:
        thread.start()
    try:
        yield device
    finally:
        ending.set()
        server.shutdown()
        server.server_close()
        threads[1].join(5)
        udp.close()


def _handler(device: Device):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            action = re.search(r"<s:Body><(\w+)", body).group(1)
            authorization = self.headers.get("Authorization", "")
            device.requests.append((self.path, action, body, authorization))
            if device.digest and action != "GetSystemDateAndTime" and not _is_digest(device, authorization):
                self._reply(401, b"", {"WWW-Authenticate": 'Digest realm="cam", nonce="abc", algorithm=MD5'})
                return
            status, content = device.answer(action, body)
            asked_as = self.headers["Host"].rpartition(":")[0].encode()
            self._reply(status, content.replace(b"127.0.0.1", asked_as), {})

        def _reply(self, status, content, headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            return

    return Handler


def _is_digest(device: Device, authorization: str) -> bool:
    found = dict(re.findall(r'(\w+)="([^"]*)"', authorization))
    if not found:
        return False

    def md5(text):
        return hashlib.md5(text.encode()).hexdigest()

    first = md5(f"{device.user}:cam:{device.password}")
    return found["response"] == md5(f"{first}:abc:" + md5(f"POST:{found['uri']}"))
