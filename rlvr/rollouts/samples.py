"""From a rollout to the train sample: prompt tokens masked, the policy's own tokens with their credit."""

from __future__ import annotations

from collections.abc import Sequence

from rlvr.types import Completion, Rollout, TrainSample


def policy_sample(rollout: Rollout, advantages: Sequence[float], *, group_index: int, scored: bool = True) -> TrainSample:
    """Lay a completion behind its prompt; `advantages` has one entry per token that the policy wrote.

    `scored` False masks the whole sample: it then counts as a sequence without tokens. The stop token is part of the completion and stays
    in the loss: without it the policy never learns to end its answer.
    """
    prompt, completion = rollout.prompt, rollout.completion
    blank = (0.0,) * len(prompt.token_ids)
    credit = iter(advantages)
    return TrainSample(
        token_ids=prompt.token_ids + completion.token_ids,
        loss_mask=(False,) * len(prompt.token_ids) + tuple(scored and mine for mine in completion.mask),
        behavior_logprobs=blank + completion.logprobs,
        advantages=blank + tuple(next(credit) if mine else 0.0 for mine in completion.mask),
        policy_version=completion.first_version,
        group_index=group_index,
    )


def written_sample(prompt: Sequence[int], completion: Completion) -> TrainSample:
    """Lay a completion behind its prompt to ask a policy for its log-probs; nothing is learned from it."""
    blank = (0.0,) * (len(prompt) + completion.num_tokens)
    return TrainSample(
        token_ids=(*prompt, *completion.token_ids),
        loss_mask=(False,) * len(prompt) + completion.mask,
        behavior_logprobs=blank,
        advantages=blank,
        policy_version=completion.first_version,
        group_index=0,
    )
