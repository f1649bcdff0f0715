"""What a checkpoint answers through vLLM. Run by the Python of an environment that has vLLM, which this one has not.

    PYTHON vllm_answers.py FOLDER

In FOLDER, `asked.json`: {"checkpoint", "most": longest answer in tokens, "watched": ids of the tokens whose shares are
wanted, "prompts": [{"text", "pictures": [names]}]}, and `pictures.npz`: uint8 `[frames, height, width, 3]` RGB by name,
with the frames' seconds, float64 `[frames]`, under the name and "@". One frame is an image, two are a video.
Writes `answers.json`, for each prompt: {"ids": its tokens as the engine expanded them, "said": tokens of the answer,
"log_shares": for each watched token the natural logarithm of its probability to come first in the answer}.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
}

MAX_TOKENS = 8192
SECOND = 1000  # frames of a video are numbered in ms


def main(folder: Path) -> None:
    from vllm import LLM, SamplingParams

    asked = json.loads((folder / "asked.json").read_text())
    with np.load(folder / "pictures.npz") as stored:
        prompts = [
            prompt(one["text"], [(stored[name], stored[name + "@"]) for name in one["pictures"]])
            for one in asked["prompts"]
        ]
    most = {kind: max(len(one["multi_modal_data"][kind]) for one in prompts) for kind in ("image", "video")}
    llm = LLM(
        asked["checkpoint"],
        dtype="float32",
        enforce_eager=True,
        block_size=32,
        max_model_len=MAX_TOKENS,
        max_num_batched_tokens=MAX_TOKENS,
        max_num_seqs=32,
        limit_mm_per_prompt=most,
        seed=0,
    )
    how = SamplingParams(temperature=0.0, max_tokens=asked["most"], logprob_token_ids=asked["watched"])
    answers = [answer(output, asked["watched"]) for output in llm.generate(prompts, how, use_tqdm=False)]
    (folder / "answers.json").write_text(json.dumps(answers))


def prompt(text, pictures):
    """A prompt as vLLM takes it."""
    images = [frames[0] for frames, _ in pictures if len(frames) == 1]
    videos = [video(frames, seconds) for frames, seconds in pictures if len(frames) > 1]
    return {"prompt": text, "multi_modal_data": {"image": images, "video": videos}}


def video(frames, seconds):
    """A video item that is neither sampled again nor given other times."""
    numbers = np.rint(seconds * SECOND).astype(int).tolist()
    told = {"fps": SECOND, "frames_indices": numbers, "total_num_frames": numbers[-1] + 1, "do_sample_frames": False}
    return frames, told


def answer(output, watched):
    """What the test reads of a `RequestOutput`."""
    first = output.outputs[0]
    shares = {token: first.logprobs[0][token].logprob for token in watched}
    return {"ids": output.prompt_token_ids, "said": list(first.token_ids), "log_shares": shares}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
