"""Write yards as video files with their truth: `python -m samples.yard.world --seed 800000 --minutes 1 --out DIR`."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from samples.yard.questions.grammar import watch_intervals
from samples.yard.world.codec import write_video
from samples.yard.world.facts import HEIGHT, WIDTH, FrameFacts
from samples.yard.world.scene import Scene

FACTS_FPS = 5
"""Frames per second whose facts are written."""


def write_world(seed: int, minutes: float, out: Path, *, scale: int = 1, cameras: int = 1) -> list[Path]:
    """Write one H.264 file per camera (seeds `seed`, `seed + 1`, ...) and `truth.json`; return the video files."""
    if minutes <= 0 or cameras < 1:
        raise ValueError(f"a world needs minutes > 0 and at least one camera; got {minutes} min, {cameras} cameras")
    out.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    truths: list[dict[str, object]] = []
    for camera in range(cameras):
        scene = Scene(seed + camera, minutes * 60, scale=scale)
        files.append(out / f"camera_{seed + camera}.mp4")
        write_video(files[-1], scene)
        truths.append({"file": files[-1].name, "seed": scene.seed, **camera_truth(scene)})
    head = {"size": [HEIGHT * scale, WIDTH * scale], "facts_fps": FACTS_FPS, "facts_size": [HEIGHT, WIDTH]}
    (out / "truth.json").write_text(json.dumps({**head, "cameras": truths}) + "\n")
    return files


def camera_truth(scene: Scene) -> dict[str, object]:
    """Facts of FACTS_FPS frames a second, and for every watch when it is true and how many px tall its evidence is."""
    frames = facts_over_time(scene)
    watches = {
        question: [
            {"start_s": span.start_s, "end_s": span.end_s, "evidence_px": round(span.pixels, 1)} for span in spans
        ]
        for question, spans in watch_intervals(frames).items()
    }
    return {"watches": watches, "frames": [_visible(frame) for frame in frames]}


def facts_over_time(scene: Scene, fps: int = FACTS_FPS) -> list[FrameFacts]:
    """The facts of a whole scene, `fps` frames a second."""
    return [scene.look(index / fps).facts for index in range(round(scene.seconds * fps))]


def _visible(frame: FrameFacts) -> dict[str, object]:
    things = [{key: value for key, value in asdict(thing).items() if value is not None} for thing in frame.visible]
    return {**asdict(frame), "things": things}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True, help="which yard; tests and tables use 800000 to 899999")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--out", type=Path, required=True, help="folder for the video files and truth.json")
    parser.add_argument("--scale", type=int, choices=(1, 2), default=1, help="1: 448 x 256 px, 2: 896 x 512 px")
    parser.add_argument("--cameras", type=int, default=1)
    given = parser.parse_args()
    try:
        files = write_world(given.seed, given.minutes, given.out, scale=given.scale, cameras=given.cameras)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for path in files:
        print(path)
    print(given.out / "truth.json")


if __name__ == "__main__":
    main()
