"""Run as a script: two AdamW steps on a tiny module, by DeepSpeed ZeRO-1 over gloo and by torch, and writes both ends as JSON."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import torch
from torch import nn

LEARNING_RATE = 1e-2


def tiny_module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(6, 8, generator=generator), torch.randn(6, 4, generator=generator)) for _ in range(2)]


def flat(module: nn.Module) -> list[float]:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).tolist()


def train_with_torch() -> list[float]:
    module = tiny_module()
    optimizer = torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE)
    for inputs, targets in batches():
        optimizer.zero_grad()
        nn.functional.mse_loss(module(inputs), targets).backward()
        optimizer.step()
    return flat(module)


def train_with_deepspeed() -> list[float]:
    import deepspeed

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    # A shortcut between ranks of one machine, not needed over gloo: building it takes a C++ compiler and most of a minute.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False)
    module = tiny_module()
    engine, _, _, _ = deepspeed.initialize(
        model=module,
        optimizer=torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE),
        config={
            "train_micro_batch_size_per_gpu": 6,
            "zero_optimization": {"stage": 1},
            "zero_allow_untested_optimizer": True,
            "gradient_clipping": 0.0,  # Left out, DeepSpeed 0.19 clips the gradient norm to 1.
        },
    )
    for inputs, targets in batches():
        engine.backward(nn.functional.mse_loss(engine(inputs), targets))
        engine.step()
    return flat(engine.module)


def main(result: str) -> None:
    start = flat(tiny_module())
    Path(result).write_text(json.dumps({"start": start, "torch": train_with_torch(), "deepspeed": train_with_deepspeed()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
