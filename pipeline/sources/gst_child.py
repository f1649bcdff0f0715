"""Decoding by GStreamer in a process of its own, so that a crash of it is no crash of the service. It is run by the
Python of the distribution, which has the bindings, whatever Python the service runs on: it imports nothing from here.

    python3 gst_child.py PARSER DECODER CONVERTER CAPS

Standard input: packets, each 8 bytes of time stamp (ns), 4 bytes of length and the data. Standard output: pictures,
each 8 bytes of time stamp, 4 each of width, height and length, and the data, NV12 as GStreamer lays it out. All numbers
are little-endian. What goes wrong is the last line on standard error.
"""

import struct
import sys
import threading

PACKET = struct.Struct("<QI")
PICTURE = struct.Struct("<QIII")
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
    """Decode standard input to standard output, until it ends."""
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
    pipeline.set_state(Gst.State.PLAYING)

    def feed() -> None:
        read = sys.stdin.buffer.read
        while len(head := read(PACKET.size)) == PACKET.size:
            pts, length = PACKET.unpack(head)
            buffer = Gst.Buffer.new_wrapped(read(length))
            buffer.pts = pts
            source.emit("push-buffer", buffer)
        source.emit("end-of-stream")

    threading.Thread(target=feed, daemon=True).start()
    out = sys.stdout.buffer
    while True:
        sample = sink.emit("try-pull-sample", STEP_NS)
        # A source that has failed gives no picture and no end.
        if sample is None and (failure := bus.pop_filtered(Gst.MessageType.ERROR)) is not None:
            sys.exit(f"GStreamer: {failure.parse_error()[0].message}")
        if sample is None and sink.get_property("eos"):
            return
        if sample is not None:
            buffer, shape = sample.get_buffer(), sample.get_caps().get_structure(0)
            size = shape.get_value("width"), shape.get_value("height")
            data = buffer.extract_dup(0, buffer.get_size())
            out.write(PICTURE.pack(buffer.pts, *size, len(data)))
            out.write(data)
            out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
