"""Weights from the trainer's GPU to vLLM servers without a file: vLLM's own trainer-side engines over NCCL or CUDA memory handles.

Not measured here: no GPU was at hand. The check of `rlvr.weight_sync` applies to it as to any other transport.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal
from urllib.parse import urlsplit

import torch
from torch import Tensor

from rlvr.errors import ConfigError

GpuTransport = Literal["nccl", "ipc"]
TIMEOUT_SECONDS = 300.0


def check_transport(transport: GpuTransport) -> None:
    """Raises: ConfigError: there is no GPU to send from."""
    if not torch.cuda.is_available():
        raise ConfigError(f"weight_sync.transport={transport} sends from a GPU, and torch finds none: set weight_sync.transport=file")


def send(transport: GpuTransport, url: str, tensors: Mapping[str, Tensor], version: str) -> None:
    """Send the whole state dict to one server; its pause and resume are the caller's."""
    connection = _connection(transport, url)
    connection.source.tensors = tensors
    connection.client.version = version
    connection.engine.send_weights()


class _Connection:
    """A rendezvous with one server, kept for the run."""

    def __init__(self, transport: GpuTransport, url: str) -> None:
        from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
        from vllm.distributed.weight_transfer.clients import HTTPVLLMWeightSyncClient
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
        from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        class Source(WeightSource):
            tensors: Mapping[str, Tensor] = {}

            def metadata(self) -> list[ParamMeta]:
                return [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self.tensors.items()]

            def __iter__(self) -> Iterator[tuple[str, Tensor]]:
                yield from self.tensors.items()

        class Client(HTTPVLLMWeightSyncClient):
            version: str = "0"

            def finish_weight_update(self, weight_version: str | None = None) -> None:
                super().finish_weight_update(weight_version or self.version)

        self.client = Client(url, timeout=TIMEOUT_SECONDS)
        self.source = Source()
        info: Any = IPCTrainerInitInfo(rank=0)
        if transport == "nccl":
            address = _own_address(url)
            info = NCCLTrainerInitInfo(master_address=address, master_port=_free_port(address), world_size=_world_size(url) + 1, rank=0)
        self.engine = WeightTransferTrainerFactory.trainer_init(info, client=self.client, source=self.source)


@cache
def _connection(transport: GpuTransport, url: str) -> _Connection:
    return _Connection(transport, url)


def _world_size(url: str) -> int:
    import httpx

    response = httpx.get(f"{url}/get_world_size", timeout=TIMEOUT_SECONDS)
    return int(response.raise_for_status().json()["world_size"])


def _own_address(url: str) -> str:
    """The address of this machine that the server can reach."""
    parts = urlsplit(url)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # A datagram socket's connect sends nothing.
        probe.connect((parts.hostname or "127.0.0.1", parts.port or 80))
        return probe.getsockname()[0]


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]
