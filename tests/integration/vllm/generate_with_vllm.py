"""Run as a script: generates with vLLM from a model folder and writes the tokens and log-probs as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(model_folder: str, result: str) -> None:
    from vllm import LLM, SamplingParams

    prompts = [[10, 20, 30, 40], list(range(5, 45))]
    engine = LLM(
        model=model_folder,
        dtype="float32",
        enforce_eager=True,
        max_model_len=256,
        logprobs_mode="processed_logprobs",
        disable_log_stats=True,
        seed=0,
    )
    runs = []
    for temperature in (0.0, 0.7):
        sampling = SamplingParams(temperature=temperature, max_tokens=24, logprobs=0, ignore_eos=True, seed=1)
        outputs = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], sampling, use_tqdm=False)
        for prompt, output in zip(prompts, outputs, strict=True):
            completion = output.outputs[0]
            token_ids = list(completion.token_ids)
            logprobs = [entry[token].logprob for entry, token in zip(completion.logprobs, token_ids, strict=True)]
            runs.append({"temperature": temperature, "prompt": prompt, "token_ids": token_ids, "logprobs": logprobs})
    Path(result).write_text(json.dumps(runs))


if __name__ == "__main__":
    main(*sys.argv[1:])
