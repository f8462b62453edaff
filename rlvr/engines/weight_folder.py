"""The folder that trainer and servers share: the present weights, and the adapters of the last versions."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import torch

from rlvr.errors import WeightSyncFailed


class WeightFolder:
    """Writes whole or not at all; the present weights stay, for servers that come back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    def write(self, tensors: dict[str, torch.Tensor], version: int) -> Path:
        """Write the whole state dict to a file of its own and return its path; the ones before it are removed.

        Raises: WeightSyncFailed: it cannot be written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path = self._folder / f"version_{version:06d}.safetensors"
        aside = path.with_suffix(".unfinished")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file(_without_shared_memory(tensors), aside)
            aside.replace(path)
        except (OSError, SafetensorError) as error:
            raise WeightSyncFailed(f"cannot write the weights to {path}: {error}; weight_sync.folder names another place") from error
        for older in self._folder.glob("version_*"):
            if older != path:
                older.unlink(missing_ok=True)
        return path

    def keep_adapter(self, folder: Path, version: int) -> Path:
        """Copy adapters to a place of their own and return it."""
        path = self._folder / f"adapters_{version:06d}"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(folder, path)
        return path

    def drop_adapter(self, path: Path) -> None:
        """Remove adapters that nobody samples with any more."""
        shutil.rmtree(path, ignore_errors=True)

    def remove(self) -> None:
        """Remove what was written here, and the folder if nothing else is in it: it may be one of the user's own."""
        for weights in self._folder.glob("version_*"):
            weights.unlink(missing_ok=True)
        for adapters in self._folder.glob("adapters_*"):
            self.drop_adapter(adapters)
        with suppress(OSError):  # It holds something else, or was never made.
            self._folder.rmdir()


def _without_shared_memory(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy tied tensors, and no others: safetensors refuses memory that is shared, and the receiver needs both names."""
    separate: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage().data_ptr()
        separate[name] = plain.clone() if storage in seen else plain
        seen.add(storage)
    return separate
