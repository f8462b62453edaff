"""The verifier `math`, seen from outside: cases of every kind, where the final answer is found, and what each verdict means."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest

from tests.unit.math.cases import CASES
from verifiers.errors import BadOption, GoldError
from verifiers.math import Math
from verifiers.registry import build
from verifiers.testing import ODD_TEXTS, FixedResponse
from verifiers.types import Problem, Verdict

KINDS: dict[str, list[tuple[bool, str, str]]] = defaultdict(list)
for kind, right, gold, answer in CASES:
    KINDS[kind].append((right, gold, answer))


def judge(gold: str, *texts: str, verifier: Math | None = None) -> list[Verdict]:
    return asyncio.run((verifier or Math())(Problem("p", (), {"answer": gold}), [FixedResponse(text) for text in texts]))


def outcome(gold: str, text: str, **options: object) -> str:
    return judge(gold, text, verifier=Math(**options))[0].outcome  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_every_case_of_a_kind_is_judged_right(kind: str) -> None:
    wrong = []
    for right, gold, answer in KINDS[kind]:
        (verdict,) = judge(gold, rf"so \boxed{{{answer}}}.")
        if (verdict.outcome == "correct") != right or verdict.score != float(verdict.outcome == "correct"):
            wrong.append((right, gold, answer, verdict))
    assert not wrong


def test_every_gold_answer_of_the_cases_accepts_itself() -> None:
    golds = {gold for _, _, gold, _ in CASES}
    assert [gold for gold in sorted(golds) if judge(gold, rf"\boxed{{{gold}}}")[0].outcome != "correct"] == []


@pytest.mark.parametrize(
    ("text", "extracted"),
    [
        (r"first \boxed{1}, then after some more work \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed 5", "5"),
        (r"\fbox{5}", "5"),
        ("<answer> 7 </answer>", " 7 "),
        (r"<answer>\boxed{7}</answer>", "7"),
        (r"<think>\boxed{5}</think> So \boxed{6}", "6"),
        ("Hence the answer is 12.", "12"),
        ("The final answer is $x = 3$. I hope it is correct.", "$x = 3$"),
        ("**Final Answer:** 5", "5"),
        ("Some work.\n#### 1,234", "1,234"),
        ("Some work.\nA: 42", "42"),
        ("It follows that $y = 4$ and so $x = 7$ for a triangle.\nNow we are done with all of it, as was to be shown here.", "x = 7"),
        ("He pays 3 dollars, then 5 dollars.\nThat is all that he had to pay in the end.", "5"),
        (r"\boxed{255} so far. Final Answer: The final answer is $10$.", "$10$"),
    ],
)
def test_the_final_answer_is_found_in_an_order_of_trust(text: str, extracted: str) -> None:
    (verdict,) = judge("1", text)
    assert verdict.extracted == extracted.strip()


@pytest.mark.parametrize(
    "text", ["The answer is 5.", "#### 5", "$5$", "5", r"<think>\boxed{5}</think> I do not know.", r"So \boxed{5", r"\boxed{}"]
)
def test_strict_extraction_trusts_only_a_closed_box_or_tag(text: str) -> None:
    assert outcome("5", text, extraction="strict") == "unparseable"


def test_an_answer_that_stands_only_in_closed_thought_is_no_answer() -> None:
    assert outcome("5", r"<think>\boxed{5}</think> I do not know.") == "unparseable"
    assert outcome("5", r"<think>\boxed{6}</think> \boxed{5}") == "correct"


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{5} or \boxed{6}",
        r"\boxed{6} or \boxed{5}",
        r"\boxed{6}\boxed{5}",
        r"either $\boxed{6}$ or $\boxed{5}$",
        r"\boxed{5 \text{ or } 6}",
        r"\boxed{6, 5}",
        "The answer is 5 or 6",
        r"\boxed{4}, \boxed{5}, \boxed{6}",
        "<answer>6</answer> <answer>5</answer>",
        r"\boxed{1} \boxed{2} \boxed{3} \boxed{4} \boxed{5} \boxed{6}",
    ],
)
def test_hedging_never_earns_the_reward(text: str) -> None:
    for extraction in ("lenient", "strict"):
        assert outcome("5", text, extraction=extraction) != "correct"


def test_several_boxes_are_right_where_the_gold_answer_has_several_values() -> None:
    assert outcome("1,-2", r"$\boxed{-2}$ and $\boxed{1}$") == "correct"
    assert outcome("1,-2", r"$\boxed{-2}$ and $\boxed{3}$") == "incorrect"
    assert outcome("5", r"\boxed{5}. So it is \(\boxed{5}\).") == "correct"


def test_a_response_cut_off_before_its_answer_is_truncated() -> None:
    verifier = Math(extraction="strict")
    response = FixedResponse("I begin with", finish_reason="length", num_tokens=9)
    (verdict,) = asyncio.run(verifier(Problem("p", (), {"answer": "5"}), [response]))
    assert verdict.outcome == "truncated"


@pytest.mark.parametrize("gold", [r"\frac{1}{", "(1,2", "$$", "...", "?", r"\begin{align}", r"x = \unknowncommand{3}"])
def test_a_gold_answer_that_cannot_be_read_is_an_error_and_never_a_score(gold: str) -> None:
    with pytest.raises(GoldError, match="cannot be read"):
        judge(gold, r"\boxed{5}")


def test_an_answer_that_is_no_formula_is_unparseable() -> None:
    assert outcome("5", r"\boxed{\frac{1}{}}") == "unparseable"
    assert outcome("5", r"\boxed{\#\#}") == "unparseable"


def test_the_tolerance_is_relative_and_off_by_default() -> None:
    assert outcome(r"\pi", r"\boxed{3.14159}") == "incorrect"
    assert outcome(r"\pi", r"\boxed{3.14159}", tolerance=1e-5) == "correct"
    assert outcome(r"\pi", r"\boxed{3.14}", tolerance=1e-5) == "incorrect"


@pytest.mark.parametrize(
    "options",
    [
        {"tolerance": -1},
        {"extraction": "guess"},
        {"second_opinion": "me"},
        {"deadline_seconds": float("nan")},
        {"wrong": 1},
        {"deadline_seconds": 0},
        {"num_workers": 0},
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(BadOption):
        build("math", options)


def test_odd_texts_are_judged_without_an_error() -> None:
    assert all(verdict.outcome != "correct" for verdict in judge("987", *ODD_TEXTS))


PAYLOADS = [
    "__import__('pathlib').Path({path!r}).touch()",
    "open({path!r},'w')",
    "(lambda: open({path!r},'w'))() or 0",
    "getattr(__import__('pathlib').Path({path!r}),'touch')()",
    "eval(\"open({path!r},'w')\")",
    "exec(\"open({path!r},'w')\")",
    "N(__import__('os').system('touch {path}'))",
    "len(str(open({path!r},'w')))",
    "[c for c in ().__class__.__base__.__subclasses__()][0](open({path!r},'w'))",
    "\\frac{{__import__('os').system('touch {path}')}}{{1}}",
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_text_of_the_model_is_never_executed(payload: str, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    text = payload.format(path=str(touched))
    for gold in ("0", "1", r"\sum_{k=1}^{n} k"):
        for response in (rf"\boxed{{{text}}}", text, f"The answer is ${text}$.", rf"\boxed{{\sum_{{k=1}}^{{9}} {text}}}"):
            assert judge(gold, response)[0].outcome != "correct"
    assert not touched.exists()


HARD = r"\int_0^1 e^{\sin(x^x)} \cos(e^x) dx"


def test_a_check_past_its_deadline_is_reported_as_such_and_its_neighbours_are_judged() -> None:
    verifier = Math(deadline_seconds=0.3, num_workers=1)
    started = time.monotonic()
    verdicts = judge("1", r"\boxed{1}", rf"\boxed{{{HARD}}}", r"\boxed{\int_0^1 2x dx}", verifier=verifier)
    assert [verdict.outcome for verdict in verdicts] == ["correct", "timeout", "correct"]
    assert time.monotonic() - started < 30  # two starts of a worker and one deadline, with room for a busy machine


def test_a_batch_of_a_thousand_with_five_percent_pathological_ones_is_judged_whole() -> None:
    towers = [
        r"\boxed{9^{9^{9^{9}}}}",
        r"\boxed{1E1000000000}",
        r"\boxed{1000000!}",
        r"\boxed{" + "(" * 3000 + "2" + ")" * 3000 + "}",
        rf"\boxed{{{HARD}}}",
    ]
    texts = [towers[index // 20 % 5] if index % 20 == 0 else rf"\boxed{{{index % 3}}}" for index in range(1000)]
    verdicts = judge("2", *texts, verifier=Math(deadline_seconds=0.2, num_workers=2))
    for index, verdict in enumerate(verdicts):
        if index % 20:
            assert verdict.outcome == ("correct" if index % 3 == 2 else "incorrect")
        else:  # Brackets around a 2 are a 2.
            assert verdict.outcome == {3: "correct", 4: "timeout"}.get(index // 20 % 5, "incorrect")


def test_a_second_opinion_is_noted_and_never_decides() -> None:
    verifier = Math(second_opinion="math_verify")
    agreed, differing = judge("101_2", r"\boxed{101_2}", r"\boxed{101_3}", verifier=verifier)
    assert agreed.outcome == "correct" and agreed.parts == {"math_verify": 1.0, "math_verify_disagrees": 0.0}
    # Math-Verify drops the base of a numeral (measured with 0.9.0).
    assert differing.outcome != "correct" and differing.parts == {"math_verify": 1.0, "math_verify_disagrees": 1.0}


def test_it_works_in_threads_with_their_own_event_loops() -> None:
    results: dict[int, str] = {}

    def work(index: int) -> None:
        results[index] = judge(r"\frac{\pi}{4}", rf"\boxed{{\arctan {1 if index % 2 else 2}}}")[0].outcome

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {index: "correct" if index % 2 else "incorrect" for index in range(8)}


def test_cheap_checks_do_not_load_sympy() -> None:
    import subprocess
    import sys

    code = (
        "import asyncio, sys\n"
        "from verifiers.math import Math\n"
        "from verifiers.testing import FixedResponse\n"
        "from verifiers.types import Problem\n"
        "verdict = asyncio.run(Math()(Problem('p', (), {'answer': '1/2'}), [FixedResponse(r'\\boxed{0.5}')]))[0]\n"
        "assert verdict.outcome == 'correct'\n"
        "assert 'sympy' not in sys.modules and 'mpmath' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


HOSTILE = {
    "boxes that never close": r"\boxed{" * 100_000 + "5",
    "boxes in boxes": r"\boxed{" * 50_000 + "5" + "}" * 50_000,
    "empty boxes": r"\boxed{} " * 100_000 + r"\boxed{5}",
    "tags that never close": "<answer>" * 200_000,
    "many tags": "<answer>4</answer>" * 100_000,
    "thoughts": "</think>" * 200_000,
    "openings of formulas": r"\[" * 500_000,
    "dollars": "$" * 3_000_000,
    "announcements": "the answer is 4. " * 200_000,
    "brackets": "(" * 500_000,
    "braces in a box": r"\boxed{" + "{" * 200_000 + "}" * 200_000 + "}",
    "a long text with a box at its end": "so $x$ " * 1_000_000 + r"\boxed{5}",
    "white space": " answer" + " " * 1_000_000 + "is 5",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_the_final_answer_is_looked_for_in_time_linear_in_the_text(name: str) -> None:
    started = time.monotonic()
    judge("987", HOSTILE[name])
    assert time.monotonic() - started < 20  # a quadratic search takes minutes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{1}. \boxed{5}", "correct"),
        (r"\boxed{1}. Or \boxed{5}", "incorrect"),
        (r"\boxed{1} " * 2000 + r"\boxed{5}", "correct"),
        (r"The answer is \boxed{5}. Wait, so it is \boxed{6}.", "incorrect"),
    ],
)
def test_a_box_that_is_taken_back_is_no_hedge(text: str, expected: str) -> None:
    assert judge("5", text)[0].outcome == expected


def surds(start: int, stop: int) -> list[str]:
    return [rf"\sqrt{{{number}+\sqrt{{{number + 1}}}}}" for number in range(start, stop)]


COSTLY = {
    "a long list in another order": (",".join(surds(2, 180)), ",".join(reversed(surds(2, 180))), "correct"),
    "a long list that differs": (",".join(surds(2, 180)), ",".join(f"{surd}+1" for surd in surds(2, 180)), "incorrect"),
    "a long sum": ("1", "+".join(rf"\sin({k} x)\cos(\sqrt{{{k} y}})" for k in range(2, 250)), "incorrect"),
    "sums in sums": ("1", r"\sum_{k=1}^{400}" * 6 + "k", "incorrect"),
    "huge powers of many variables": ("1", "*".join(rf"(x_{{{k}}}+1)^{{{10**9 + k}}}" for k in range(200)), "incorrect"),
    "huge binomials": ("1", "+".join(rf"\binom{{{10**6 + k}}}{{{5 * 10**5}}}" for k in range(100)), "incorrect"),
    "roots in roots": ("2", r"\sqrt{2+" * 190 + "2" + "}" * 190, "correct"),
    "long fractions to high powers": ("1", "*".join(rf"({10**8 + k}/{10**8 + k + 1})^{{300}}" for k in range(150)), "incorrect"),
    "short words": ("1", " ".join(["abc"] * 2400) + " +", "unparseable"),
}


@pytest.mark.parametrize("name", COSTLY)
def test_costly_answers_are_judged_in_bounded_time(name: str) -> None:
    gold, answer, expected = COSTLY[name]
    started = time.monotonic()
    assert outcome(gold, rf"\boxed{{{answer}}}", deadline_seconds=5.0) == expected
    assert time.monotonic() - started < 30


def test_numbers_of_more_digits_than_python_writes_are_compared() -> None:
    # 99999^99999 has 500 000 digits; the sum's value would be one of them.
    assert outcome("918273645", r"\boxed{\sum_{k=1}^{n} x^{99999^{99999}}}", deadline_seconds=5.0) == "incorrect"
    assert outcome("1", r"\boxed{\prod_{k=1}^{2000} k^3}", deadline_seconds=5.0) == "incorrect"
    assert outcome(r"3^{20000}", r"\boxed{9^{10000}}") == "correct"
    assert outcome(r"3^{20000}+\sqrt{2}", r"\boxed{\sqrt{2}+9^{10000}+1}") == "incorrect"
