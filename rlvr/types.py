"""The values that flow from sampling to training. Standard library only.

Every per-token list has the length of `token_ids`; entry t speaks about token t given the tokens before it. Log-probs are natural
logs (nats) under the *sampling* distribution (temperature applied).
"""

from __future__ import annotations

from dataclasses import dataclass

from verifiers.types import FinishReason, Problem, Verdict


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 are off."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    num_samples: int = 1
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A problem as the policy's tokens."""

    problem: Problem
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """Tokens the policy wrote, the stop token included, with the log-prob each had when it was drawn.

    `first_version` and `last_version` are the policy versions that wrote its first and last token. In an episode with an environment
    `written` tells the policy's tokens from the environment's, whose log-probs are 0; empty, all are the policy's. `text` is what the
    policy wrote, which is what a verifier sees; `transcript` is all of it, where that is more.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    first_version: int
    last_version: int
    written: tuple[bool, ...] = ()
    transcript: str = ""

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def mask(self) -> tuple[bool, ...]:
        """For each token, whether the policy wrote it."""
        return self.written or (True,) * len(self.token_ids)

    @property
    def num_written(self) -> int:
        """Tokens that the policy wrote."""
        return sum(self.written) if self.written else len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Rollout:
    """A completion and what the verifier said of it.

    `step_ends`: for each of the verdict's steps the exclusive end among the tokens that the policy wrote.
    """

    prompt: Prompt
    completion: Completion
    verdict: Verdict
    step_ends: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StepValues:
    """A completion's steps: the exclusive end of each among its tokens, and, of each but the first, the value of the state it begins in.

    That value is the mean score of auxiliary rollouts from there. The first step begins at the prompt.
    """

    ends: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class GroupValues:
    """The steps of a group's completions, in their order, and what their values took: rollouts, those of them that could not be judged and
    are in no value, and the tokens that were written."""

    steps: tuple[StepValues, ...]
    num_rollouts: int
    num_unjudged: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """All rollouts of one prompt. `index` is its place in the prompt stream; `greedy` is for ReMax, `values` are for VinePPO."""

    index: int
    rollouts: tuple[Rollout, ...]
    greedy: Rollout | None = None
    values: GroupValues | None = None


@dataclass(frozen=True, slots=True)
class TrainSample:
    """The joint between rollouts and training: one token sequence with what the loss needs to know of each token.

    `loss_mask` is True on tokens the policy wrote and False on the prompt and on tool output; `behavior_logprobs` and `advantages`
    are 0 where the mask is False. All four have the length of `token_ids`.
    """

    token_ids: tuple[int, ...]
    loss_mask: tuple[bool, ...]
    behavior_logprobs: tuple[float, ...]
    advantages: tuple[float, ...]
    policy_version: int
    group_index: int
