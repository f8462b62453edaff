"""Predicts the time of a training step on a cluster from figures of one device, and checks the prediction where it can.

    python -m bench.cluster_cost                                   measure here, on CPU over gloo, and compare with predictions
    python -m bench.cluster_cost --parameters 7.6e9 --ranks 64 --stage 3 --bandwidth 40e9 \
        --train 9500 --generate 2600 --tokens 8.4e6 --microbatches 8   predict for a cluster of yours

The model: ranks sample and compute at the speed of one device each, and what moves is bytes over bandwidth, nothing hidden behind anything.
So it is an upper estimate where communication overlaps, and a lower one where ranks wait for each other's longest completions.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

WARM_UP, REPEATS = 2, 5


@dataclass(frozen=True)
class Cluster:
    """What is known: `train` and `generate` in tokens/s of one device, `bandwidth` in bytes/s that a rank sends in a collective, `tokens`
    of all completions of a step, `microbatches` of each rank."""

    parameters: float
    ranks: int
    stage: int
    bandwidth: float
    train: float
    generate: float
    tokens: float
    microbatches: int = 1
    weight_bytes: int = 2
    seconds_outside: float = 0.0
    """What a step takes beside: the optimizer, of one device with the whole state."""


@dataclass(frozen=True)
class StepCost:
    """Seconds."""

    rollout: float
    compute: float
    communication: float
    optimizer: float

    @property
    def update(self) -> float:
        return self.compute + self.communication + self.optimizer

    @property
    def total(self) -> float:
        return self.rollout + self.update


def predict(cluster: Cluster) -> StepCost:
    """Return what a step takes."""
    each = cluster.tokens / cluster.ranks
    return StepCost(
        rollout=each / cluster.generate,
        compute=each / cluster.train,
        communication=sent_bytes(cluster) / cluster.bandwidth,
        optimizer=cluster.seconds_outside / (cluster.ranks if cluster.stage else 1),
    )


def sent_bytes(cluster: Cluster) -> float:
    """Return what a rank sends in one update.

    A reduce-scatter and an all-gather of P numbers each send P (W - 1) / W; an all-reduce is both. Stage 0 all-reduces the gradient once.
    Stage 1 does as well, as DeepSpeed 0.19 does it, and gathers the weights; stage 2 reduces after each micro-batch; stage 3 gathers the
    weights in each forward and backward, and reduces after each.
    """
    whole = cluster.parameters * cluster.weight_bytes * (cluster.ranks - 1) / cluster.ranks
    times = {0: 2, 1: 3, 2: 2 * cluster.microbatches + 1, 3: 4 * cluster.microbatches}
    return whole * times[cluster.stage]


def measure(case: dict, result: Path) -> None:
    """Run as a rank: time an update and the bandwidth of an all-reduce, and write both."""
    import torch
    import torch.distributed as dist
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from rlvr.batch import MiniBatch, Totals
    from rlvr.batching import build_microbatch
    from rlvr.config import DataConfig, DeepSpeedConfig, ModelConfig, OptimizerConfig, SftConfig
    from rlvr.distributed import joined_ranks
    from rlvr.losses import CrossEntropyObjective
    from rlvr.policy.deepspeed_policy import DeepSpeedPolicy
    from rlvr.policy.loading import prepare_model
    from rlvr.policy.protocol import Term
    from rlvr.types import TrainSample

    torch.set_num_threads(1)
    hidden, layers, length = case["hidden"], case["layers"], 128
    config = Qwen2Config(
        vocab_size=512,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
    )
    settings = ModelConfig(path="random", dtype="float32", device="cpu")
    deepspeed = DeepSpeedConfig(zero_stage=case["stage"])
    with joined_ranks(SftConfig(model=settings, data=DataConfig(path="none"), deepspeed=deepspeed)) as ranks:
        loaded = prepare_model(Qwen2ForCausalLM(config), None, settings)
        policy = DeepSpeedPolicy(loaded, optimizer=OptimizerConfig(), config=deepspeed, ranks=ranks)
        parameters = sum(getattr(p, "ds_numel", p.numel()) for p in loaded.model.parameters())
        num_each = case["tokens"] // ranks.size // length // case["microbatches"]
        zeros = (0.0,) * length
        samples = [
            TrainSample((5,) * length, (False,) + (True,) * (length - 1), zeros, zeros, policy_version=0, group_index=index)
            for index in range(num_each)
        ]
        totals = Totals(case["tokens"], case["tokens"] // length, length)
        minibatch = MiniBatch((build_microbatch(samples),) * case["microbatches"], totals)
        seconds = []
        for _ in range(WARM_UP + REPEATS):
            ranks.meet()
            began = time.perf_counter()
            policy.update(Term(minibatch, CrossEntropyObjective()))
            seconds.append(time.perf_counter() - began)
        bandwidth = 0.0
        if ranks.size > 1:
            numbers = torch.zeros(int(parameters))
            moved = []
            for _ in range(WARM_UP + REPEATS):
                ranks.meet()
                began = time.perf_counter()
                dist.all_reduce(numbers)
                moved.append(2 * numbers.numel() * 4 * (ranks.size - 1) / ranks.size / (time.perf_counter() - began))
            bandwidth = statistics.median(moved[WARM_UP:])
        if ranks.is_main:
            outcome = {"seconds": statistics.median(seconds[WARM_UP:]), "bandwidth": bandwidth, "parameters": parameters}
            result.write_text(json.dumps(outcome))


def measured(ranks: int, **case: int) -> dict:
    """Run `measure` on so many processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, *launcher, "-m", "bench.cluster_cost", "--rank", json.dumps(case), str(result)]
        subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return json.loads(result.read_text())


def check() -> None:
    print("| hidden x layers | stage | ranks | micro-batches | update measured s | predicted s | predicted / measured |")
    print("|---|---|---|---|---|---|---|")
    for hidden, layers, tokens in ((256, 4, 8192), (512, 6, 8192)):
        small = measured(1, hidden=hidden, layers=layers, tokens=tokens // 4, microbatches=1, stage=1)
        whole = measured(1, hidden=hidden, layers=layers, tokens=tokens, microbatches=4, stage=1)
        # Two points of one device: seconds a token, and what a step takes without any.
        rate = (tokens - tokens // 4) / (whole["seconds"] - small["seconds"])
        outside = max(0.0, whole["seconds"] - tokens / rate)
        for stage in (0, 1, 2, 3):
            for ranks in (2, 4):
                found = measured(ranks, hidden=hidden, layers=layers, tokens=tokens, microbatches=2, stage=stage)
                cluster = Cluster(
                    parameters=found["parameters"],
                    ranks=ranks,
                    stage=stage,
                    bandwidth=found["bandwidth"],
                    train=rate,
                    generate=float("inf"),
                    tokens=tokens,
                    microbatches=2,
                    weight_bytes=4,
                    seconds_outside=outside,
                )
                predicted = predict(cluster).update
                row = f"{found['seconds']:.3f} | {predicted:.3f} | {predicted / found['seconds']:.2f}"
                print(f"| {hidden} x {layers} | {stage} | {ranks} | 2 | {row} |", flush=True)


def show(cluster: Cluster) -> None:
    print("| ranks | rollout s | compute s | communication s | optimizer s | step s | tokens/s |")
    print("|---|---|---|---|---|---|---|")
    for ranks in sorted({1, 8, cluster.ranks, 4 * cluster.ranks}):
        cost = predict(replace(cluster, ranks=ranks))
        parts = " | ".join(f"{value:.1f}" for value in (cost.rollout, cost.compute, cost.communication, cost.optimizer, cost.total))
        print(f"| {ranks} | {parts} | {cluster.tokens / cost.total:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", nargs=2, metavar=("CASE", "RESULT"), help=argparse.SUPPRESS)
    parser.add_argument("--parameters", type=float, help="of the model")
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--stage", type=int, default=2, choices=(0, 1, 2, 3), help="ZeRO stage")
    parser.add_argument("--bandwidth", type=float, default=40e9, help="bytes/s that a rank sends in a collective")
    parser.add_argument("--train", type=float, help="tokens/s that one device learns from (performance/tokens_per_second of its update)")
    parser.add_argument("--generate", type=float, help="tokens/s that one device samples")
    parser.add_argument("--tokens", type=float, help="tokens of all completions of a step")
    parser.add_argument("--microbatches", type=int, default=1, help="micro-batches of each rank in an update")
    given = parser.parse_args()
    if given.rank:
        measure(json.loads(given.rank[0]), Path(given.rank[1]))
    elif given.parameters is None:
        check()
    else:
        names = ("parameters", "ranks", "stage", "bandwidth", "train", "generate", "tokens", "microbatches")
        show(Cluster(**{name: getattr(given, name) for name in names}))


if __name__ == "__main__":
    main()
