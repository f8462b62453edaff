r"""Tries a verifier on real rows: the gold answer, written as a response, must be judged correct, and another answer must not.

A verifier that rejects gold answers gives no reward to learn from, and one that accepts anything gives the wrong one; both look like a
normal run for hours. How an answer has to be written is found by trying.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from rlvr.judge import Judge
from verifiers.errors import VerifierError
from verifiers.types import FinishReason, Problem, Verdict

FORMS = (
    "<think>\nSo it is.\n</think>\n<answer>{answer}</answer>",
    "So it is.\n</think>\n<answer>{answer}</answer>",
    "<think>\nSo it is.\n</think>\n\\boxed{{{answer}}}",
    "\\boxed{{{answer}}}",
    "<answer>{answer}</answer>",
    "#### {answer}",
    "The answer is {answer}",
    "{answer}",
)
"""How a response may state its answer, most demanding form first; the second continues a prompt that ends with <think>."""
PROGRAM_FORMS = ("```python\n{answer}\n```", "{answer}")
"""The same for a program, where the reference holds one as `solution`."""
WRONG_ANSWERS = ("31415926.5358", "Z", "no such thing")


@dataclass(frozen=True, slots=True)
class WrittenAnswer:
    """A response made up for the check."""

    text: str
    num_tokens: int = 16
    finish_reason: FinishReason = "stop"


@dataclass(frozen=True, slots=True)
class GoldCheck:
    """What came of it. `form` earned the most; `rejected` gold answers and `accepted` wrong ones are described, `num_failed` raised."""

    num_tried: int
    form: str
    rejected: tuple[str, ...]
    accepted: tuple[str, ...]
    failures: tuple[str, ...]


def check_gold(problems: Sequence[Problem], judge: Judge) -> GoldCheck | None:
    """Judge gold and wrong answers of these problems; None where no reference holds an answer that could be written out."""
    answered = [problem for problem in problems if has_written_gold(problem)]
    return asyncio.run(_check(answered, judge)) if answered else None


def has_written_gold(problem: Problem) -> bool:
    """Say whether the reference holds an answer that could be written out."""
    return isinstance(problem.reference.get("answer", problem.reference.get("solution")), str | int | float)


def written_gold(problem: Problem) -> str:
    """Return the gold answer as a response would write it."""
    return str(problem.reference["answer"]).strip() if "answer" in problem.reference else str(problem.reference["solution"])


def forms_of(problem: Problem) -> Sequence[str]:
    """The forms in which a response may state the gold answer of a problem."""
    return FORMS if "answer" in problem.reference else PROGRAM_FORMS


async def judge_gold(problem: Problem, judge: Judge) -> list[Verdict]:
    """Judge the gold answer of a problem written in every form of `forms_of`, in that order.

    Raises: VerifierError: the verifier cannot judge by this gold answer.
    """
    gold = written_gold(problem)
    return await judge(problem, [WrittenAnswer(form.format(answer=gold)) for form in forms_of(problem)])


def nearest_to_correct(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict that tells most about a rejection: the highest score, and of those one where an answer was found at all."""
    return max(verdicts, key=lambda verdict: (verdict.score, verdict.extracted is not None))


async def _check(problems: Sequence[Problem], judge: Judge) -> GoldCheck:
    correct_in_form = [0] * len(FORMS)
    rejected, accepted, failures = [], [], []
    for problem in problems:
        gold = written_gold(problem)
        others, forms = [written_gold(other) for other in problems], forms_of(problem)
        wrong = next(answer for answer in (*others, *WRONG_ANSWERS) if answer.casefold() != gold.casefold())
        try:
            verdicts = await judge_gold(problem, judge)
            correct = [index for index, verdict in enumerate(verdicts) if verdict.outcome == "correct"]
            wrong_verdicts = await judge(problem, [WrittenAnswer(forms[index].format(answer=wrong)) for index in correct])
        except VerifierError as error:
            failures.append(str(error))
            continue
        for index in correct:
            correct_in_form[index] += 1
        if not correct:
            best = nearest_to_correct(verdicts)
            rejected.append(
                f"problem '{problem.id}': gold answer {gold!r} is {best.outcome}{f' ({best.explanation})' if best.explanation else ''}"
            )
        elif any(verdict.outcome == "correct" for verdict in wrong_verdicts):
            accepted.append(f"problem '{problem.id}': {wrong!r} is accepted though the gold answer is {gold!r}")
    form = forms_of(problems[0])[correct_in_form.index(max(correct_in_form))].format(answer="…")
    return GoldCheck(len(problems), form, tuple(rejected), tuple(accepted), tuple(failures))
