"""The folder that trainer and servers share: the present weights, and the adapters of the last versions."""

from __future__ import annotations

import shutil
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
            # Copies: safetensors refuses tied tensors that share memory, and the receiver needs both names.
            save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, aside)
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
        shutil.rmtree(self._folder, ignore_errors=True)
