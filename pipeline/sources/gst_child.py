"""Decoding by GStreamer in a process of its own, so that a crash of it is no crash of the service. It is run by the
Python of the distribution, which has the bindings, whatever Python the service runs on: it imports nothing from here.

    python3 gst_child.py PARSER DECODER CONVERTER CAPS

Standard input: messages of a kind, a time stamp (ns) and a length, little-endian, each followed by so many bytes. A
PACKET is to be decoded. Every picture is announced (SEEN, with its size) and kept until it is fetched or dropped, so
that only those cross the pipe that somebody wants. END: no packet comes any more; pictures may still be fetched.
Standard output: messages of a kind, time stamp, width, height and length; PIXELS are NV12 as GStreamer lays it out.
What goes wrong is the last line on standard error.
"""

import os
import struct
import sys
import threading

TO_CHILD = struct.Struct("<BQI")
FROM_CHILD = struct.Struct("<BQIII")
PACKET, FETCH, DROP, END = range(4)
SEEN, PIXELS, OVER = range(3)

STEP_NS = 50_000_000
"""How long a picture is waited for before the pipeline is asked whether it is well."""
PACKAGES = {
    "appsrc": "gstreamer1.0-plugins-base",
    "appsink": "gstreamer1.0-plugins-base",
    "videoconvert": "gstreamer1.0-plugins-base",
    "h264parse": "gstreamer1.0-plugins-bad",
    "h265parse": "gstreamer1.0-plugins-bad",
    "nvv4l2decoder": "nvidia-l4t-gstreamer (part of JetPack)",
    "nvvidconv": "nvidia-l4t-gstreamer (part of JetPack)",
}


def main(parser: str, decoder: str, converter: str, caps: str) -> None:
    """Decode what comes on standard input, until that is closed."""
    try:
        import gi  # type: ignore[import-not-found]

        gi.require_version("Gst", "1.0")
        from gi.repository import Gst  # type: ignore[import-not-found]
    except (ImportError, ValueError):
        sys.exit("GStreamer is not installed for Python; apt-get install python3-gi gir1.2-gstreamer-1.0")
    Gst.init(None)
    for name in ("appsrc", parser, decoder, converter, "appsink"):
        if Gst.ElementFactory.find(name) is None:
            other = "gstreamer1.0-libav" if name.startswith("avdec_") else "the plugin that has it"
            sys.exit(f"GStreamer has no element {name}; install {PACKAGES.get(name, other)}")
    pipeline = Gst.parse_launch(
        f'appsrc name=in format=time block=true max-bytes=4194304 caps="{caps}" ! {parser} ! {decoder} ! {converter}'
        " ! video/x-raw,format=NV12 ! appsink name=out sync=false max-buffers=2"
    )
    source, sink, bus = pipeline.get_by_name("in"), pipeline.get_by_name("out"), pipeline.get_bus()
    pictures: dict[int, Gst.Buffer] = {}  # those that are neither fetched nor dropped, by time stamp
    writing = threading.Lock()

    def tell(kind: int, pts: int, width: int = 0, height: int = 0, data: bytes = b"") -> None:
        with writing:
            sys.stdout.buffer.write(FROM_CHILD.pack(kind, pts, width, height, len(data)) + data)
            sys.stdout.buffer.flush()

    def listen() -> None:
        read = sys.stdin.buffer.read
        while len(head := read(TO_CHILD.size)) == TO_CHILD.size:
            kind, pts, length = TO_CHILD.unpack(head)
            data = read(length)
            if kind == PACKET:
                buffer = Gst.Buffer.new_wrapped(data)
                buffer.pts = pts
                source.emit("push-buffer", buffer)
            elif kind == END:
                source.emit("end-of-stream")
            elif (buffer := pictures.pop(pts, None)) is not None and kind == FETCH:
                tell(PIXELS, pts, data=buffer.extract_dup(0, buffer.get_size()))

    pipeline.set_state(Gst.State.PLAYING)
    listening = threading.Thread(target=listen)
    listening.start()
    while listening.is_alive():
        sample = sink.emit("try-pull-sample", STEP_NS)
        # A source that has failed gives no picture and no end.
        if sample is None and (failure := bus.pop_filtered(Gst.MessageType.ERROR)) is not None:
            print(f"GStreamer: {failure.parse_error()[0].message}", file=sys.stderr, flush=True)  # noqa: T201
            break
        if sample is None and sink.get_property("eos"):
            tell(OVER, 0)
            listening.join()
        if sample is not None:
            buffer, shape = sample.get_buffer(), sample.get_caps().get_structure(0)
            pictures[buffer.pts] = buffer
            tell(SEEN, buffer.pts, shape.get_value("width"), shape.get_value("height"))
    # The other thread may wait for input that never comes.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
