"""The engine of real footage: trained on the first part of each camera's time by what the MLLM itself answers there."""

from dataclasses import replace
from pathlib import Path

from allocator_engine.digests import of_texts
from allocator_engine.evaluate.run import OnProgress
from allocator_engine.manifest import FILE_NAME
from pipeline.config.mllm import DetectorConfig, MLLMConfig
from pipeline.config.site import parse_site
from pipeline.lab.real_tasks import RealTasks
from pipeline.lab.site_engine import ShortTraining, make_engine
from pipeline.lab.training import answering, identity_of


def trained_on(
    footage: Path, mllm: MLLMConfig, work: Path, on_progress: OnProgress, training: ShortTraining = ShortTraining()
) -> Path:
    """The folder of the engine; one that was made before of the same clips, MLLM and training is taken as it is.

    Raises ConnectionError where the MLLM does not answer: the same call goes on where it was.
    """
    clips = RealTasks(footage, closed=isinstance(mllm, DetectorConfig)).training()
    named = of_texts([repr((clip.file.name, clip.start_s, clip.end_s, clip.questions)) for clip in clips])
    mark = of_texts([named, identity_of(mllm), repr(training)])
    out = work / f"engine-{mark}"
    if (out / FILE_NAME).exists():
        return out
    site = replace(parse_site({}), mllm=mllm)
    with answering(site, work, "dense") as asked:
        make_engine(
            clips,
            asked,
            training,
            work / f"steps-{mark}",
            out,
            lambda records, steps: on_progress("training", len(records), steps),
        )
    return out
