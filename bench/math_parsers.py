"""Three ways to read an answer in LaTeX: rlvr's parser, latex2sympy2-extended, and sympy's lark grammar.

    python -m bench.math_parsers [--labelled FILE.jsonl …]

Counts which of the distinct golds and answers each can read, and how fast. Without files the cases of the test suite are taken.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 2


class Late(Exception):
    """A parser passed its time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labelled", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    texts = sorted({text for file in options.labelled for text in read_texts(file)}) or own_texts()

    from latex2sympy2_extended import latex2sympy
    from sympy.parsing.latex import parse_latex

    from verifiers.math.cleaning import clean
    from verifiers.math.parser import parse

    readers: list[tuple[str, Callable[[str], Any]]] = [
        ("rlvr", lambda text: parse(clean(text))),
        ("latex2sympy2-extended 1.11.0", latex2sympy),
        ("sympy 1.14 lark", lambda text: parse_latex(text, backend="lark")),
    ]
    print(f"{len(texts)} distinct texts\n| parser | read | p50 ms | p99 ms | total s |\n|---|---|---|---|---|")
    for name, read in readers:
        read_ok, latencies = 0, []
        for text in texts:
            ok, milliseconds = attempt(read, text)
            read_ok += ok
            latencies.append(milliseconds)
        latencies.sort()
        p99 = latencies[int(len(latencies) * 0.99)]
        print(
            f"| {name} | {read_ok / len(texts):.1%} | {statistics.median(latencies):.2f} | {p99:.1f} | {sum(latencies) / 1000:.1f} |",
            flush=True,
        )


def attempt(read: Callable[[str], Any], text: str) -> tuple[bool, float]:
    """Return whether the text was read within the time, and the milliseconds it took."""

    def late(*_: object) -> None:
        raise Late

    signal.signal(signal.SIGALRM, late)
    signal.alarm(TIMEOUT_SECONDS)
    start = time.perf_counter()
    try:
        read(text)
        return True, 1000 * (time.perf_counter() - start)
    except Exception:  # Boundary: other people's parsers fail in every way.
        return False, 1000 * (time.perf_counter() - start)
    finally:
        signal.alarm(0)


def read_texts(file: Path) -> list[str]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [row[key] for row in rows for key in ("gold", "answer") if isinstance(row.get(key), str)]


def own_texts() -> list[str]:
    from tests.unit.math.cases import CASES

    return sorted({text for _, _, *pair in CASES for text in pair})


if __name__ == "__main__":
    main()
