from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rlvr.config import DataConfig
from rlvr.data.chat import prompt_text, render, render_demonstration, render_demonstrations
from rlvr.data.problems import Demonstration
from rlvr.data.prompt_stream import build_prompts
from rlvr.errors import ConfigError, DataError
from verifiers.types import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ASK = Problem("p", ({"role": "user", "content": "1+1?"},), {"answer": "2"})
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}|{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def config(**settings: object) -> DataConfig:
    return DataConfig(path="unused", **settings)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    """One token a character; puts <s> before and </s> behind a text when asked for special tokens, as Llama's and some others do."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", *map(chr, range(32, 127)), "\n"])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def shown(tokenizer: PreTrainedTokenizerBase, token_ids: tuple[int, ...]) -> str:
    return tokenizer.decode(list(token_ids))


def test_the_chat_template_is_used_where_there_is_one(tokenizer: PreTrainedTokenizerBase) -> None:
    assert shown(tokenizer, render(ASK, tokenizer, config())) == "<s>user: 1+1?|assistant: "


def test_the_plain_template_is_used_for_base_models_and_on_request(tokenizer: PreTrainedTokenizerBase) -> None:
    assert shown(tokenizer, render(ASK, tokenizer, config(template="plain"))) == "<s>1+1?\n"
    tokenizer.chat_template = None
    assert shown(tokenizer, render(ASK, tokenizer, config(plain_template="Q: {question} {x}\nA:"))) == "<s>Q: 1+1? {x}\nA:"


def test_the_first_token_is_written_once_and_no_end_follows(tokenizer: PreTrainedTokenizerBase) -> None:
    for settings in ({"template": "chat"}, {"template": "plain"}, {"template": "plain", "plain_template": "<s>{question}"}):
        token_ids = render(ASK, tokenizer, config(**settings))
        assert token_ids[0] == 0 and token_ids.count(0) == 1 and 1 not in token_ids


def test_a_tokenizer_that_adds_no_first_token_gets_none(tiny_model_folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    assert tokenizer.decode(list(render(ASK, tokenizer, config(template="plain")))) == "1+1?\n"
    assert tokenizer.decode(list(render(ASK, tokenizer, config()))) == "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"


def test_system_prompt_instruction_and_response_prefix_stand_where_they_belong(tokenizer: PreTrainedTokenizerBase) -> None:
    settings = config(system_prompt="Be brief.", instruction="Think.", response_prefix="<think>")
    assert prompt_text(ASK, tokenizer, settings) == "<s>system: Be brief.|user: 1+1? Think.|assistant: <think>"
    plain = config(template="plain", system_prompt="Be brief.", instruction="Think.", response_prefix="<think>")
    assert prompt_text(ASK, tokenizer, plain) == "Be brief.\n\n1+1? Think.\n<think>"


def test_the_configured_system_prompt_takes_the_place_of_the_problems_own(tokenizer: PreTrainedTokenizerBase) -> None:
    problem = Problem("p", ({"role": "system", "content": "Own."}, *ASK.messages), {})
    assert prompt_text(problem, tokenizer, config()) == "<s>system: Own.|user: 1+1?|assistant: "
    assert prompt_text(problem, tokenizer, config(system_prompt="New.")) == "<s>system: New.|user: 1+1?|assistant: "


def test_the_instruction_goes_to_the_last_user_turn_and_the_problem_is_not_changed(tokenizer: PreTrainedTokenizerBase) -> None:
    turns = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"})
    problem = Problem("p", turns, {})
    for _ in range(2):
        assert prompt_text(problem, tokenizer, config(instruction="!")) == "<s>user: a|assistant: b|user: c !|assistant: "


def test_a_template_that_cannot_be_used_is_an_error_naming_the_remedy(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ConfigError, match="must contain {question}"):
        render(ASK, tokenizer, config(template="plain", plain_template="Q: "))
    tokenizer.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    with pytest.raises(DataError, match="problem 'p': System role not supported; .*data.instruction"):
        render(ASK, tokenizer, config(system_prompt="s"))
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="no chat template; set data.template=plain"):
        render(ASK, tokenizer, config(template="chat"))


def test_a_demonstration_is_trained_on_its_response_and_end_only(tokenizer: PreTrainedTokenizerBase) -> None:
    sample = render_demonstration(Demonstration(ASK, "two"), tokenizer, config(template="plain"))
    assert shown(tokenizer, sample.token_ids) == "<s>1+1?\ntwo</s>"
    trained = tuple(token for token, mask in zip(sample.token_ids, sample.loss_mask, strict=True) if mask)
    assert shown(tokenizer, trained) == "two</s>"
    assert sample.token_ids[: sample.loss_mask.index(True)] == render(ASK, tokenizer, config(template="plain"))


def test_a_response_prefix_that_the_demonstration_repeats_is_written_once(tokenizer: PreTrainedTokenizerBase) -> None:
    settings = config(template="plain", response_prefix="<think>")
    for response in ("<think>a</think>", "a</think>"):
        assert shown(tokenizer, render_demonstration(Demonstration(ASK, response), tokenizer, settings).token_ids) == (
            "<s>1+1?\n<think>a</think></s>"
        )


def test_a_tokenizer_without_an_end_token_cannot_teach_to_stop(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="no end-of-sequence token"):
        render_demonstration(Demonstration(ASK, "two"), tokenizer, config())


def test_long_prompts_are_dropped_and_counted_never_truncated(tokenizer: PreTrainedTokenizerBase) -> None:
    problems = [Problem(str(n), ({"role": "user", "content": "x" * n},), {}) for n in (3, 10, 4, 11)]
    # <s> and the line break add two tokens.
    settings = config(template="plain", max_prompt_tokens=6)
    prompts = build_prompts(problems, tokenizer, settings)
    assert [prompt.problem.id for prompt in prompts.prompts] == ["3", "4"] and prompts.num_too_long == 2
    supervised = render_demonstrations([Demonstration(problem, "y" * 50) for problem in problems], tokenizer, settings)
    assert len(supervised.samples) == 2 and supervised.num_too_long == 2


def test_no_prompt_that_fits_is_an_error_with_the_shortest_length(tokenizer: PreTrainedTokenizerBase) -> None:
    settings = config(template="plain", max_prompt_tokens=5)
    with pytest.raises(DataError, match="all 1 prompts are longer than data.max_prompt_tokens=5; the shortest has 6 tokens"):
        build_prompts([ASK], tokenizer, settings)
    with pytest.raises(DataError, match="all 1 prompts are longer"):
        render_demonstrations([Demonstration(ASK, "y")], tokenizer, settings)
