"""An RTSP camera for tests. Run by the distribution's own Python, which has the GStreamer bindings.

    /usr/bin/python3 rtsp_server.py PORT LAUNCH [USER PASSWORD]

Serves LAUNCH, a gst-launch description with a payloader `pay0`, at rtsp://127.0.0.1:PORT/cam and prints `ready`.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - the versions come first


def guard(server, factory, user, password):
    """Let only `user` in."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", user)
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    factory.add_role_from_structure(
        Gst.Structure.new_from_string(f"{user}, media.factory.access=true, media.factory.construct=true")
    )


def main(port, launch, credentials):
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory.new()
    factory.set_shared(True)
    factory.set_latency(0)
    factory.set_launch(launch)
    if credentials:
        guard(server, factory, *credentials)
    server.get_mount_points().add_factory("/cam", factory)
    if not server.attach(None):
        sys.exit(f"cannot listen on port {port}")
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
