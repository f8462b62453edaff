"""Every gold answer of the benchmarks accepts itself, also after the rewrites that models make."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from verifiers.math import Math
from verifiers.testing import FixedResponse
from verifiers.types import Problem

FILES = ("gsm8k_test", "gsm8k_train", "math500", "aime24", "amc23", "olympiadbench")


def rewrites(gold: str) -> list[str]:
    """The answer itself, and what the same answer is often written like."""
    forms = [gold, f" {gold} ", f"${gold}$", rf"\({gold}\)"]
    forms.append(gold.replace("\\frac", "\\dfrac"))
    forms.append(
        re.sub(r"(?<!\\left)([(\[])", r"\\left\1", re.sub(r"(?<!\\right)([)\]])", r"\\right\1", gold)) if "left" not in gold else gold
    )
    forms.append(re.sub(r"([-+=])", r" \1 ", gold))
    if re.fullmatch(r"-?[0-9]+", gold):
        forms += [f"{gold}.0", f"{gold}.00", rf"{gold}\text{{ cm}}", rf"{gold} \text{{ apples}}", f"x = {gold}", f"{int(gold):,}"]
    return forms


@pytest.mark.parametrize("name", FILES)
def test_every_gold_answer_accepts_itself_and_its_usual_rewrites(name: str, data_dir: Path) -> None:
    verifier = Math(extraction="strict")
    refused = []
    for line in (data_dir / "math" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        forms = rewrites(row["answer"])
        verdicts = asyncio.run(
            verifier(Problem(row["id"], (), {"answer": row["answer"]}), [FixedResponse(rf"\boxed{{{form}}}") for form in forms])
        )
        refused += [(row["answer"], form, verdict) for form, verdict in zip(forms, verdicts, strict=True) if verdict.outcome != "correct"]
    assert not refused
