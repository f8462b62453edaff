"""The weight-transfer engine that runs inside vLLM: takes a whole state dict, from memory or from a file, on any hardware.

Registered with vLLM's own factory: by `rlvr.engines.vllm_local` in this process, and in a server's processes by the entry point
`vllm.general_plugins` of this package. vLLM pauses generation around it and resets its caches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor
from vllm.distributed.weight_transfer.base import WeightTransferEngine, WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from rlvr.engines.vllm_requests import TRANSFER_BACKEND, model_shape


@dataclass
class ModelShape(WeightTransferInitInfo):
    """Which model the weights will be of; see `rlvr.engines.vllm_requests.model_shape`."""

    shape: dict[str, int | str] = field(default_factory=dict)


@dataclass
class StateDict(WeightTransferUpdateInfo):
    """The whole state dict, tied names included: `tensors` within one process, else the safetensors file at `path`."""

    path: str | None = None
    tensors: Iterable[tuple[str, Tensor]] | None = None


class StateDictTransfer(WeightTransferEngine[ModelShape, StateDict]):
    """Loads a checkpoint-format state dict through vLLM's layerwise reloading."""

    init_info_cls = ModelShape
    update_info_cls = StateDict
    _received = False

    def init_transfer_engine(self, init_info: ModelShape) -> None:
        """Refuse another model: vLLM's loaders cut or skip what does not fit, without an error.

        Raises: ValueError: the shapes differ.
        """
        own = model_shape(self.model_config.hf_text_config)
        differing = {name: (own[name], value) for name, value in init_info.shape.items() if name in own and own[name] != value}
        if differing:
            told = ", ".join(f"{name} is {mine} here and {theirs} there" for name, (mine, theirs) in differing.items())
            raise ValueError(f"this server's model is not the trainer's: {told}")

    def start_weight_update(self) -> None:
        self._received = False
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: StateDict) -> None:
        """Load all tensors in one call: vLLM re-ties a tied output projection only when it sees the whole state dict."""
        tensors = update_info.tensors if update_info.tensors is not None else _read(Path(update_info.path or ""))
        try:
            self.model.load_weights(tensors)
        except BaseException:
            # Half a state dict must not stay behind in vLLM's buffers, where the next whole one would be added to it.
            finalize_layerwise_reload(self.model, self.model_config)
            raise
        self._received = True

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        if self._received:
            self._repack_tied_head()

    def shutdown(self) -> None:
        """Nothing is open."""

    def _repack_tied_head(self) -> None:
        """Pack a tied output projection anew on a CPU, where it multiplies with a packed copy that reloading the embedding leaves behind.

        Measured with vLLM 0.32: without it every layer is exact and the projection is the old one.
        """
        if self.device.type != "cpu":
            return
        from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

        tied = getattr(self.model_config.hf_text_config, "tie_word_embeddings", False)
        head = getattr(self.model, "lm_head", None)
        if tied and head is not None and hasattr(head, "weight"):
            dispatch_cpu_unquantized_gemm(head, remove_weight=False)


def _read(path: Path) -> Iterable[tuple[str, Tensor]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  The file is no mapping.
            yield name, file.get_tensor(name)


def register() -> None:
    """Make the engine known to vLLM in this process; vLLM calls it in each of its processes."""
    if TRANSFER_BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(TRANSFER_BACKEND, StateDictTransfer)
