"""Episodes: tokens flow on unchanged, the environment's words are masked out, and a model that calls the tool gets its answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from rlvr.compute import ComputeThread
from rlvr.config import DataConfig, EngineConfig, RunConfig
from rlvr.credit import credit_groups
from rlvr.data.chat import answer_ids, render
from rlvr.engines.transformers import TransformersEngine
from rlvr.environments.protocol import Turn
from rlvr.environments.python_tool import PythonTool
from rlvr.errors import EnvironmentFailed
from rlvr.rollouts.sampler import Episodes, Sampled
from rlvr.rollouts.samples import policy_sample
from rlvr.run import train
from rlvr.tracking.metrics import read_metrics
from rlvr.tracking.rollout_table import RolloutTable
from rlvr.types import Completion, Prompt, Rollout, RolloutGroup, Sampling
from tests.conftest import save_tiny_model
from verifiers.errors import VerifierError
from verifiers.types import Message, Problem, Verdict

QUESTION = "12+34?"
CALL = "```python\nprint(12 + 34)\n```"
OUTPUT = "```output\n46\n```"
ANSWER = "It is \\boxed{46}"
PROBLEM = Problem("sum", ({"role": "user", "content": QUESTION},), {"answer": "46"})
UNSAFE = {"allow_unsafe": True}  # The programs here are these tests' own.
DATA = DataConfig(path="none", template="chat")


@pytest.fixture(scope="module")
def tool_model(tmp_path_factory) -> Path:
    """A tiny model that knows one conversation by heart: it calls the tool, reads its output and answers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("tool_model")
    save_tiny_model(folder, initializer_range=0.02)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    conversation = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": CALL},
        {"role": "user", "content": OUTPUT},
        {"role": "assistant", "content": ANSWER},
    ]
    tokens = tokenizer.apply_chat_template(conversation, return_tensors="pt", return_dict=True).input_ids
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    torch.manual_seed(0)
    for _ in range(150):
        loss = model(tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, end]
    model.save_pretrained(folder)
    return folder


def play(folder: Path, environment, *, sampling: Sampling, max_turns: int = 4, timeout_seconds: float = 20.0) -> Sampled:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    async def run() -> Sampled:
        with ComputeThread(num_threads=1) as compute:
            engine = TransformersEngine(model, tokenizer, compute=compute, config=EngineConfig())
            episodes = Episodes(
                engine=engine,
                environment=environment,
                render=lambda problem: render(problem, tokenizer, DATA),
                answer=lambda conversation, said, reply: answer_ids(conversation, said, reply, tokenizer, DATA),
                decode=lambda ids: tokenizer.decode(list(ids)),
                max_turns=max_turns,
                timeout_seconds=timeout_seconds,
            )
            try:
                return await episodes.sample(Prompt(PROBLEM, (1,)), sampling)
            finally:
                await engine.close()

    return asyncio.run(run())


GREEDY = Sampling(120, temperature=0.0, num_samples=2, seed=3)


def local_tool(**options) -> PythonTool:
    return PythonTool(sandbox="local", sandbox_options=UNSAFE, instructions=None, **options)


def test_an_episode_calls_the_tool_reads_its_output_and_answers(tool_model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tool_model)
    sampled = play(tool_model, local_tool(), sampling=GREEDY)
    for completion in sampled.completions:
        said = [token for token, mine in zip(completion.token_ids, completion.written, strict=True) if not mine]
        assert tokenizer.decode(said) == f"\n<|im_start|>user\n{OUTPUT}<|im_end|>\n<|im_start|>assistant\n"
        assert completion.text == f"{CALL}\n\n{ANSWER}"
        # Prompt and episode together are exactly what the chat template would have written.
        whole = [*PROBLEM.messages, *(_message(role, text) for role, text in ((0, CALL), (1, OUTPUT), (0, ANSWER)))]
        written = tokenizer.decode([*sampled.prompt.token_ids, *completion.token_ids])
        assert written == tokenizer.apply_chat_template(whole, tokenize=False).removesuffix("\n")
        assert completion.finish_reason == "stop"
        assert all((logprob == 0.0) == (not mine) for logprob, mine in zip(completion.logprobs, completion.written, strict=True))


def _message(role: int, text: str) -> Message:
    return {"role": ("assistant", "user")[role], "content": text}


def test_the_tools_words_are_not_learned_from(tool_model):
    sampled = play(tool_model, local_tool(), sampling=GREEDY)
    completion = sampled.completions[0]
    rollout = Rollout(sampled.prompt, completion, Verdict(1.0, "correct"))
    sample = policy_sample(rollout, [2.0] * completion.num_written, group_index=0)
    behind = slice(len(sampled.prompt.token_ids), None)
    assert sample.loss_mask[behind] == completion.written
    assert sample.advantages[behind] == tuple(2.0 if mine else 0.0 for mine in completion.written)
    assert not any(sample.loss_mask[: behind.start])


def test_credit_counts_only_the_policys_tokens():
    """Two completions of four tokens, of which the second wrote two; leave-one-out gives 1 and -1 at written tokens."""
    from rlvr.algorithms import RlooConfig

    prompt = Prompt(PROBLEM, (7,))
    whole = Completion("ab", (1, 2, 3, 4), (-1.0,) * 4, "stop", 0, 0)
    with_tool = Completion("a", (1, 2, 3, 4), (-1.0, 0.0, 0.0, -1.0), "stop", 0, 0, written=(True, False, False, True))
    group = RolloutGroup(0, (Rollout(prompt, whole, Verdict(1.0, "correct")), Rollout(prompt, with_tool, Verdict(0.0, "incorrect"))))
    [credited] = credit_groups([group], RlooConfig(), policy=None, kl_coefficient=0.0, max_new_tokens=8)
    assert [sample.advantages for sample in credited.samples] == [(0.0, 1.0, 1.0, 1.0, 1.0), (0.0, -1.0, 0.0, 0.0, -1.0)]


def test_the_budget_bounds_the_whole_episode_and_an_answer_without_place_truncates(tool_model):
    # The call has 29 tokens with its end, the tool's words 59: in 60 they have no place.
    [completion, _] = play(tool_model, local_tool(), sampling=Sampling(60, temperature=0.0, num_samples=2)).completions
    assert completion.finish_reason == "length" and completion.text == CALL and all(completion.written)


def test_the_number_of_turns_is_bounded(tool_model):
    [completion, _] = play(tool_model, local_tool(), sampling=GREEDY, max_turns=1).completions
    assert completion.text == CALL and completion.finish_reason == "stop"


@dataclass(frozen=True)
class Faulty:
    """Fails in one of the ways environments fail."""

    fault: str

    async def reset(self, problem: Problem) -> tuple[Message, ...]:
        return problem.messages

    async def step(self, problem: Problem, messages: Sequence[Message]) -> Turn:
        if self.fault == "bug":
            raise ZeroDivisionError("a bug")
        if self.fault == "hangs":
            await asyncio.sleep(100)
        raise EnvironmentFailed("the world is away")


@pytest.mark.parametrize(
    ("fault", "message"), [("bug", "raised ZeroDivisionError"), ("hangs", "timeout_seconds=0.2"), ("away", "the world is away")]
)
def test_an_environment_that_fails_is_an_error_and_never_a_score(fault, message, tool_model):
    with pytest.raises(ExceptionGroup) as raised:
        play(tool_model, Faulty(fault), sampling=GREEDY, timeout_seconds=0.2)
    assert all(isinstance(error, VerifierError) and message in str(error) for error in raised.value.exceptions)


def step(tool: PythonTool, reply: str) -> Turn:
    return asyncio.run(tool.step(PROBLEM, [*PROBLEM.messages, {"role": "assistant", "content": reply}]))


def test_a_reply_without_a_program_at_its_end_is_the_answer():
    assert step(local_tool(), "```python\nprint(1)\n```\nso it is 1").done
    assert step(local_tool(), "46").done


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        ("print('a')\nprint('b')", "a\nb"),
        ("print('before')\n1 / 0", "before\nZeroDivisionError: division by zero"),
        ("while True: pass", "it ran out of time"),
        ("pass", ""),
    ],
)
def test_the_tool_shows_what_was_printed_and_how_it_failed(program, shown):
    [message] = step(local_tool(wall_seconds=2.0), f"look:\n```python\n{program}\n```").messages
    assert message == {"role": "user", "content": f"```output\n{shown}\n```"}


def test_long_output_is_cut_in_the_middle():
    [message] = step(local_tool(max_characters=20), "```python\nprint('a' * 50 + 'b' * 50)\n```").messages
    assert message["content"] == f"```output\n{'a' * 10}\n… 80 characters left out …\n{'b' * 10}\n```"


def test_instructions_come_first_or_behind_an_own_system_message():
    tool = PythonTool(sandbox="local", sandbox_options=UNSAFE, instructions="Use the tool.")
    assert asyncio.run(tool.reset(PROBLEM))[0] == {"role": "system", "content": "Use the tool."}
    own = Problem("x", ({"role": "system", "content": "Be brief."}, *PROBLEM.messages), {})
    assert [m["content"] for m in asyncio.run(tool.reset(own))] == ["Be brief.\n\nUse the tool.", QUESTION]


def run_with_tool(folder: Path, model: Path, sandbox: str) -> Path:
    (folder / "problems.jsonl").write_text("".join(json.dumps({"question": QUESTION, "answer": "46"}) + "\n" for _ in range(4)))
    config = {
        "name": "tool",
        "runs_folder": str(folder / "runs"),
        "num_steps": 2,
        "num_threads": 1,
        "model": {"path": str(model), "dtype": "float32"},
        "data": {"path": str(folder / "problems.jsonl"), "template": "chat"},
        "verifier": {"name": "math"},
        "sampling": {"max_new_tokens": 120, "temperature": 1.2},
        "batch": {"prompts_per_step": 2, "group_size": 4},
        "environment": {
            "name": "python",
            "options": {"sandbox": sandbox, "sandbox_options": UNSAFE if sandbox == "local" else {}, "instructions": None},
        },
        "algorithm": {"name": "grpo", "kl": {"coefficient": 0.01}},
        "optimizer": {"learning_rate": 1e-5},
        "tracking": {"sinks": []},
    }
    return train(RunConfig.model_validate(config)).folder


@pytest.mark.parametrize("sandbox", ["local", pytest.param("docker", marks=pytest.mark.docker)])
def test_a_run_trains_on_episodes_and_engine_and_policy_agree_on_their_tokens(sandbox, tool_model, tmp_path):
    folder = run_with_tool(tmp_path, tool_model, sandbox)
    rows = [dict(row.values) for row in read_metrics(folder / "metrics.jsonl")][-2:]
    assert all(row["engine/logprob_drift"] < 1e-4 and row["policy/grad_norm"] >= 0 for row in rows)
    table = RolloutTable(folder / "rollouts").read(1)
    answered = [row for row in table if "```output\n46\n```" in row.completion_text]
    assert answered and any(row.outcome == "correct" for row in answered)
