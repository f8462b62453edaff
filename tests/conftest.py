"""What every test shares: one tiny model, the data folder, honest skips, and one torch thread."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

# Before torch is imported: two threads on tiny tensors wait for each other longer than they work, and one keeps numbers reproducible.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Before vLLM is imported: its engine core in this process, one GiB of KV cache.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
# Left to itself vLLM binds its threads to chosen cores, where they wait for whatever else runs there.
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")

import pytest
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from transformers import Qwen2Tokenizer

# The pure tensor functions are checked against their annotated shapes and types while they are tested. Not the modules whose
# annotations name protocols that cannot be checked at run time.
SHAPE_CHECKED = ["rlvr.advantages", "rlvr.batch", "rlvr.batching", "rlvr.logprobs", "rlvr.losses", "rlvr.rewards"]
install_import_hook(SHAPE_CHECKED, "beartype.beartype")

REPOSITORY = Path(__file__).resolve().parent.parent
MUST_RUN_IN_CI = re.compile(r"docker|vllm|deepspeed", re.IGNORECASE)
# Printable ASCII; byte-level BPE writes the space as "Ġ" and the line break as "Ċ".
CHARACTERS = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]
SPECIAL_TOKENS = ["<pad>", "<eos>", "<unk>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


# Skips are printed with their reason (`-rs` in pyproject.toml), and in CI a failure where Docker, vLLM or DeepSpeed is missing.


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = yield
    fail_skip_in_ci(report, f"{item.nodeid} {' '.join(mark.name for mark in item.iter_markers())}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    report = yield
    fail_skip_in_ci(report, collector.nodeid)
    return report


def fail_skip_in_ci(report: pytest.TestReport | pytest.CollectReport, subject: str) -> None:
    """Turn a skip that concerns Docker, vLLM or DeepSpeed, by its reason, its marker or its path, into a failure where CI=true."""
    if not report.skipped or os.environ.get("CI", "").lower() not in {"1", "true"} or hasattr(report, "wasxfail"):
        return
    _, _, reason = report.longrepr if isinstance(report.longrepr, tuple) else ("", 0, str(report.longrepr))
    if MUST_RUN_IN_CI.search(f"{subject} {reason}"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not accept here: {reason}"


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> Iterator[None]:
    """Keep torch on one thread for the whole session."""
    import torch

    torch.set_num_threads(1)
    yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the evaluation data: RLVR_DATA, or `shared/data` beside the checkout."""
    folder = Path(os.environ.get("RLVR_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}; point RLVR_DATA to one")
    return folder


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `save_pretrained` folder: Qwen2 with about 200 000 random weights and a tokenizer of single characters."""
    folder = tmp_path_factory.mktemp("tiny_model")
    save_tiny_model(folder)
    return folder


def save_untied_model(folder: Path) -> None:
    save_tiny_model(folder, tied=False)


def save_tiny_model(folder: Path, *, tied: bool = True, seed: int = 0, characters: Sequence[str] = CHARACTERS, **changes: float) -> None:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = character_tokenizer(characters)
    config = Qwen2Config(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 128,  # In 4 heads of 32, the smallest head that vLLM's CPU attention knows.
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "initializer_range": 0.2,  # Large enough for log-probs that differ clearly between tokens.
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
        }
        | changes,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def character_tokenizer(characters: Sequence[str] = CHARACTERS) -> Qwen2Tokenizer:
    """One token a character: transformers reads whatever lies beside a Qwen2 model as this class, byte-level BPE, here without merges."""
    from transformers import Qwen2Tokenizer

    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *characters])}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
