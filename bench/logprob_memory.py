"""Peak memory of log-prob plus backward at a vocabulary of 152 thousand, chunked against full logits, for growing token counts.

Each cell is a process of its own; printed is its peak resident memory less what it held before, in MiB. Chunked memory must grow with the
hidden states only. Run: python -m bench.logprob_memory
"""

from __future__ import annotations

import resource
import subprocess
import sys

VOCABULARY = 151_936  # Qwen2.5
HIDDEN = 64
TOKENS = (256, 1024, 4096)


def measure(way: str, num_tokens: int) -> float:
    """Return the peak growth in MiB of one forward and backward in this process."""
    import torch

    from rlvr.logprobs import OutputHead, token_logprobs

    torch.set_num_threads(1)
    hidden = torch.randn(num_tokens, HIDDEN, requires_grad=True)
    weight = torch.randn(VOCABULARY, HIDDEN, requires_grad=True)
    weight.grad = torch.zeros_like(weight)
    targets = torch.randint(0, VOCABULARY, (num_tokens,))
    token_logprobs(hidden[:1], targets[:1], OutputHead(weight), chunk_elements=VOCABULARY).logprobs.sum().backward()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if way == "chunked":
        loss = token_logprobs(hidden, targets, OutputHead(weight)).logprobs.sum()
    else:
        loss = torch.log_softmax(hidden @ weight.t(), -1).gather(1, targets[:, None]).sum()
    loss.backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    print(f"{'tokens':>8} {'full logits MiB':>16} {'chunked peak':>14} {'full peak':>12}")
    for num_tokens in TOKENS:
        cells = []
        for way in ("chunked", "full"):
            out = subprocess.run(
                [sys.executable, "-m", "bench.logprob_memory", way, str(num_tokens)], check=True, capture_output=True, text=True
            )
            cells.append(float(out.stdout))
        print(f"{num_tokens:8d} {num_tokens * VOCABULARY * 4 / 2**20:16.0f} {cells[0]:14.0f} {cells[1]:12.0f}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(measure(sys.argv[1], int(sys.argv[2])))
    else:
        main()
