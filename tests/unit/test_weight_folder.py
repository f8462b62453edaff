"""The folder that trainer and servers share: whole files, tied names included, and nothing of the user's is ever removed."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from rlvr.engines.weight_folder import WeightFolder
from rlvr.errors import WeightSyncFailed


def test_the_present_weights_replace_those_before_and_hold_both_names_of_a_tied_tensor(tmp_path):
    folder = WeightFolder(tmp_path / "weights")
    tied = torch.arange(4.0)
    folder.write({"a": tied, "b": tied}, 1)
    path = folder.write({"a": tied + 1, "b": tied.view(2, 2)}, 2)
    assert [each.name for each in (tmp_path / "weights").iterdir()] == ["version_000002.safetensors"]
    assert {name: tensor.tolist() for name, tensor in load_file(path).items()} == {"a": [1, 2, 3, 4], "b": [[0, 1], [2, 3]]}


def test_a_folder_of_the_users_own_keeps_what_was_in_it(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    adapters = tmp_path / "elsewhere"
    adapters.mkdir()
    folder = WeightFolder(tmp_path)
    folder.write({"a": torch.zeros(2)}, 1)
    folder.keep_adapter(adapters, 1)
    folder.remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "thesis.tex"]


def test_a_folder_of_our_own_goes(tmp_path):
    folder = WeightFolder(tmp_path / "weights")
    folder.remove()
    folder.write({"a": torch.zeros(2)}, 1)
    folder.remove()
    assert not (tmp_path / "weights").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightSyncFailed, match="weight_sync.folder names another place"):
        WeightFolder(tmp_path / "file").write({"a": torch.zeros(2)}, 1)
