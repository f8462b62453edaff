"""The verifier `process_reward`: a process reward model judges each step of a response.

The model is computed with here (transformers, on a thread of its own) or asked of a vLLM server that pools; both read what the model was
trained on, which `prm.json` beside it tells. A model that cannot be had or asked is a `VerifierError`, never a score.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from verifiers.errors import GoldError, VerifierError, first_line
from verifiers.pooling_endpoint import PoolingEndpoint
from verifiers.prm_input import FORMAT_FILE, ModelInput, PrmFormat, read_format, write_input
from verifiers.steps import split_steps, steps_of
from verifiers.types import Problem, Response, StepScore, Verdict

Reduction = Literal["min", "last", "mean", "product"]
REDUCTIONS: dict[Reduction, Callable[[Sequence[float]], float]] = {
    "min": min,
    "last": lambda scores: scores[-1],
    "mean": lambda scores: math.fsum(scores) / len(scores),
    "product": math.prod,
}
WITHOUT_LIMIT = 1 << 30
"""Tokenizers that know no limit, and models, give numbers this large."""


@dataclass(frozen=True, slots=True)
class ProcessReward:
    """Scores each step with the model's probability that it is right, and the response with the least, last, mean or product of them.

    `model` is a folder or a name: what `rlvr prm train` exported, or any token classifier of two classes; one without a `prm.json` needs
    `separator`. `separator` says where a response's steps end; without it, blank lines, or the separator of the training where that is
    white space. `threshold`: the score from which a response counts as correct. `signed_steps`: steps are scored from -1 to 1, the
    probability that they are right less the one that they are not, as `process_min_form` wants it; the response's score stays a
    probability. With `url`, or several, vLLM servers of the model (`vllm serve MODEL --runner pooling`) compute, and only tokenizer and
    `prm.json` are read here.

    A response without steps is `unparseable`, and scores 0 as one step unless it is blank; one that does not fit into the model's context,
    or `max_tokens`, is `truncated` and scores 0 as one step, without being read. One that was cut off while it was written keeps its steps'
    scores and is `truncated`. A question that does not fit by itself is an error: no response is to blame for it.
    """

    model: str
    separator: str | None = None
    reduce: Reduction = "min"
    threshold: float = 0.5
    signed_steps: bool = False
    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    batch_size: int = 16
    max_tokens: int | None = None
    url: str | Sequence[str] | None = None
    timeout_seconds: float = 60.0
    _scorer: _Scorer = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.reduce not in get_args(Reduction):
            raise ValueError(f"reduce must be one of {', '.join(get_args(Reduction))}, got {self.reduce!r}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be float32 or bfloat16, got {self.dtype!r}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be a probability, got {self.threshold!r}")
        if self.batch_size < 1 or self.timeout_seconds <= 0 or (self.max_tokens is not None and self.max_tokens < 1):
            raise ValueError("batch_size and max_tokens must be at least 1, timeout_seconds above 0")
        if self.separator == "":
            raise ValueError("separator is empty: give the text that ends a step")
        folder = Path(self.model).expanduser()
        if folder.is_dir() and self.separator is None and not (folder / FORMAT_FILE).is_file():
            raise ValueError(f"{folder} has no {FORMAT_FILE}, so it is not known what ends a step: give separator")
        server = None
        if self.url is not None:
            server = PoolingEndpoint([self.url] if isinstance(self.url, str) else list(self.url), timeout_seconds=self.timeout_seconds)
        object.__setattr__(self, "_scorer", _Scorer(self.model, self.separator, self.device, self.dtype, self.batch_size, server))

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        if not problem.messages:
            raise GoldError(f"problem {problem.id!r} has no messages, and a process reward model reads the question: give it some")
        written = await self._scorer.written(problem, [response.text for response in responses], self.max_tokens)
        fitting = [index for index, each in enumerate(written) if each.tokens is not None]
        scores = await self._scorer.scores([written[index].tokens for index in fitting]) if fitting else []
        by_index = dict(zip(fitting, scores, strict=True))
        return [
            self._verdict(response, each, by_index.get(index))
            for index, (response, each) in enumerate(zip(responses, written, strict=True))
        ]

    def _verdict(self, response: Response, written: _Written, scores: Sequence[float] | None) -> Verdict:
        if scores is None:
            # What learns from steps needs one of every response that says something.
            unread = self._steps(written.ends[-1:], (0.0,) * len(written.ends[-1:]))
            return Verdict(0.0, written.outcome, steps=unread, explanation=written.explanation)
        steps = self._steps(written.ends, scores)
        score = REDUCTIONS[self.reduce](scores)
        weakest = min(range(len(scores)), key=scores.__getitem__)
        explanation = f"{len(steps)} steps; the weakest, step {weakest + 1}, is right with probability {scores[weakest]:.3f}"
        if response.finish_reason == "length":
            return Verdict(score, "truncated", steps=steps, explanation=f"{explanation}; the response was cut off")
        return Verdict(score, "correct" if score >= self.threshold else "incorrect", steps=steps, explanation=explanation)

    def _steps(self, ends: Sequence[int], probabilities: Sequence[float]) -> tuple[StepScore, ...]:
        scores = [2 * probability - 1 for probability in probabilities] if self.signed_steps else probabilities
        return tuple(StepScore(end, score) for end, score in zip(ends, scores, strict=True))


@dataclass(frozen=True, slots=True)
class _Written:
    """A response as the model reads it and where its steps end, or why it cannot be read: then `tokens` is None."""

    ends: tuple[int, ...]
    tokens: ModelInput | None
    outcome: Literal["unparseable", "truncated"] = "unparseable"
    explanation: str = ""


class _Scorer:
    """Tokenizer, format and model, loaded at the first question. All work is on one thread: forwards never overlap, nor block the loop."""

    def __init__(self, name: str, separator: str | None, device: str, dtype: str, batch_size: int, server: PoolingEndpoint | None) -> None:
        self._name = name
        self._separator = separator
        self._device = device
        self._dtype = dtype
        self._batch_size = batch_size
        self._server = server
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="process-reward")
        self._tokenizer: Any = None
        self._model: Any = None
        self._form: PrmFormat | None = None
        self._context = WITHOUT_LIMIT

    async def written(self, problem: Problem, texts: Sequence[str], max_tokens: int | None) -> list[_Written]:
        """Return the responses as tokens. Raises: VerifierError: the model cannot be loaded, or the question cannot be written."""
        context = await self._server.max_tokens() if self._server is not None else WITHOUT_LIMIT
        return await self._on_thread(self._write_all, problem, texts, min(context, max_tokens or WITHOUT_LIMIT))

    async def scores(self, inputs: Sequence[ModelInput]) -> list[list[float]]:
        """Return for each input the probability that each of its steps is right.

        Raises: VerifierError: the forward failed, the server did not answer, or what came is no number.
        """
        if self._server is None:
            logits = await self._on_thread(self._forward, inputs)
        else:
            logits = await self._server.logits([(each.token_ids, each.step_places) for each in inputs])
        assert self._form is not None
        if not all(math.isfinite(logit) for pairs in logits for pair in pairs for logit in pair):
            raise VerifierError(f"process reward model {self._name!r} gave something that is not a number")
        return [[_probability(pair, self._form.right_label) for pair in pairs] for pairs in logits]

    async def _on_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.wrap_future(self._thread.submit(function, *arguments))

    def _write_all(self, problem: Problem, texts: Sequence[str], max_tokens: int) -> list[_Written]:
        self._load()
        limit = min(max_tokens, self._context)
        return [self._write(problem, text, limit) for text in texts]

    def _write(self, problem: Problem, text: str, limit: int) -> _Written:
        assert self._form is not None
        ends = split_steps(text, self._separator or (self._form.separator if self._form.separator.isspace() else None))
        if not ends and text.strip():
            return _Written((len(text),), None, explanation="the response holds nothing but separators")
        if not ends:
            return _Written((), None, explanation="the response is empty")
        # Of more steps than the limit none is written: each has a token at least, and the question is looked at all the same.
        steps = steps_of(text, ends) if len(ends) <= limit else []
        try:
            tokens = write_input(problem.messages, steps, self._tokenizer, self._form)
        except ValueError as error:
            raise VerifierError(f"process reward model {self._name!r}, problem {problem.id!r}: {error}") from error
        if tokens.first_step >= limit:
            raise GoldError(
                f"problem {problem.id!r}: the question alone is {tokens.first_step} tokens for the process reward model {self._name!r}, "
                f"which reads {limit} with the response: leave such problems out, or raise max_tokens where it is the limit"
            )
        if not steps:
            why = f"the response has {len(ends)} steps, and the process reward model reads {limit} tokens"
            return _Written(ends, None, "truncated", why)
        if len(tokens.token_ids) > limit:
            why = f"question and response are {len(tokens.token_ids)} tokens for the process reward model, which reads {limit}"
            return _Written(ends, None, "truncated", why)
        return _Written(ends, tokens)

    def _load(self) -> None:
        if self._form is not None:
            return
        import torch
        from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer

        try:
            config = AutoConfig.from_pretrained(self._name)
            if config.num_labels != 2 or not any("TokenClassification" in each for each in config.architectures or ()):
                kind = ", ".join(config.architectures or ["model"])
                raise ValueError(f"it is a {kind} of {config.num_labels} classes, not a classifier of tokens with two")
            self._context = getattr(config.get_text_config(), "max_position_embeddings", None) or WITHOUT_LIMIT
            self._tokenizer = AutoTokenizer.from_pretrained(self._name)
            form = self._read_format()
            if self._server is None:
                device = self._device
                if device == "auto":
                    device = "cuda" if torch.cuda.is_available() else "cpu"
                model = AutoModelForTokenClassification.from_pretrained(self._name, dtype=getattr(torch, self._dtype))
                self._model = model.to(device).eval()
        except (OSError, ValueError, KeyError, RuntimeError, AssertionError) as error:
            raise VerifierError(f"process reward model {self._name!r} cannot be loaded: {first_line(error)}") from error
        self._form = form

    def _read_format(self) -> PrmFormat:
        folder = Path(self._name).expanduser()
        saved: Path | None = folder / FORMAT_FILE
        if not folder.is_dir():
            from transformers.utils import cached_file

            found = cached_file(self._name, FORMAT_FILE, _raise_exceptions_for_missing_entries=False)
            saved = Path(found) if found else None
        if saved is not None and saved.is_file():
            return read_format(saved)
        if self._separator is None:
            raise ValueError(f"it has no {FORMAT_FILE}, so it is not known what ends a step: give separator")
        return PrmFormat(self._separator, template="chat" if self._tokenizer.chat_template else "plain")

    def _forward(self, inputs: Sequence[ModelInput]) -> list[list[tuple[float, float]]]:
        import torch

        logits: dict[int, list[tuple[float, float]]] = {}
        order = sorted(range(len(inputs)), key=lambda index: len(inputs[index].token_ids))  # Like with like: little padding.
        try:
            with torch.no_grad():
                for begin in range(0, len(order), self._batch_size):
                    rows = order[begin : begin + self._batch_size]
                    longest = max(len(inputs[index].token_ids) for index in rows)
                    padding = [longest - len(inputs[index].token_ids) for index in rows]
                    pairs = list(zip(rows, padding, strict=True))
                    ids = torch.tensor([[*inputs[index].token_ids, *[0] * pad] for index, pad in pairs], device=self._model.device)
                    mask = torch.tensor([[1] * (longest - pad) + [0] * pad for _, pad in pairs], device=self._model.device)
                    out = self._model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
                    for row, index in enumerate(rows):
                        logits[index] = [tuple(pair) for pair in out[row, list(inputs[index].step_places)].tolist()]
        except Exception as error:  # Boundary: a model's code may fail in any way, and memory may be short.
            raise VerifierError(f"process reward model {self._name!r} failed: {first_line(error)}") from error
        return [logits[index] for index in range(len(inputs))]


def _probability(logits: Sequence[float], right: int) -> float:
    """The softmax of two, of which one counts."""
    difference = logits[1 - right] - logits[right]
    return 1 / (1 + math.exp(difference)) if difference < 700 else 0.0
