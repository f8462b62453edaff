"""The verifier `process_reward`: every step has its probability, batches change nothing, and what cannot be judged is an error or named."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import character_tokenizer, save_tiny_model
from verifiers.errors import BadOption, GoldError, VerifierError, VerifierTimeout
from verifiers.prm_input import PrmFormat, read_format, write_input
from verifiers.process_reward import ProcessReward
from verifiers.registry import build
from verifiers.steps import split_steps, steps_of
from verifiers.types import Problem, StepScore, Verdict

PROBLEM = Problem("p", ({"role": "user", "content": "1+1?"},), {})
FORM = PrmFormat("\n\n", template="chat")


@dataclass(frozen=True, slots=True)
class Said:
    text: str
    finish_reason: str = "stop"
    num_tokens: int = 1


def judge(verifier: Any, *texts: str | Said) -> list[Verdict]:
    return asyncio.run(verifier(PROBLEM, [text if isinstance(text, Said) else Said(text) for text in texts]))


@pytest.fixture(scope="module")
def prm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A process reward model with random weights, which says something else of every token."""
    import torch
    from transformers import AutoModelForTokenClassification

    folder = tmp_path_factory.mktemp("prm")
    save_tiny_model(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForTokenClassification.from_pretrained(folder, num_labels=2, dtype=torch.float32)
    model.save_pretrained(folder)
    FORM.save(folder)
    return folder


def expected(prm: Path, text: str, right: int = 1) -> list[float]:
    """The same by a plain forward of one response."""
    import torch
    from transformers import AutoModelForTokenClassification

    model = AutoModelForTokenClassification.from_pretrained(prm, dtype=torch.float32).eval()
    written = write_input(PROBLEM.messages, steps_of(text, split_steps(text)), character_tokenizer(), FORM)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([written.token_ids])).logits[0]
    return logits.softmax(-1)[list(written.step_places), right].tolist()


def test_each_step_has_the_probability_at_its_last_token(prm: Path) -> None:
    text = "first\n\nsecond is longer\n\nthird"
    [verdict] = judge(build("process_reward", {"model": str(prm)}), text)
    assert [step.end_char for step in verdict.steps] == [7, 25, 30]
    assert [step.score for step in verdict.steps] == pytest.approx(expected(prm, text), abs=1e-5)
    assert verdict.score == min(step.score for step in verdict.steps)
    assert verdict.outcome == ("correct" if verdict.score >= 0.5 else "incorrect")


def test_a_group_in_one_batch_is_judged_like_each_alone(prm: Path) -> None:
    texts = ["a", "a much longer one\n\nwith two steps", "b\n\nc\n\nd", "x" * 100]
    together = judge(ProcessReward(str(prm), batch_size=4), *texts)
    for text, verdict in zip(texts, together, strict=True):
        [alone] = judge(ProcessReward(str(prm), batch_size=1), text)
        assert [step.score for step in verdict.steps] == pytest.approx([step.score for step in alone.steps], abs=1e-5)


@pytest.mark.parametrize(
    ("reduce", "of"),
    [("min", min), ("last", lambda s: s[-1]), ("mean", lambda s: sum(s) / len(s)), ("product", math.prod)],
)
def test_the_score_is_reduced_from_the_steps(prm: Path, reduce: str, of: Any) -> None:
    [verdict] = judge(ProcessReward(str(prm), reduce=reduce), "a\n\nb\n\nc")  # type: ignore[arg-type]
    assert verdict.score == pytest.approx(of([step.score for step in verdict.steps]))


def test_the_threshold_decides_what_is_correct(prm: Path) -> None:
    outcomes = [judge(ProcessReward(str(prm), threshold=threshold), "a\n\nb")[0].outcome for threshold in (0.0, 1.0)]
    assert outcomes == ["correct", "incorrect"]


def test_signed_steps_lie_between_minus_1_and_1_and_the_score_stays_a_probability(prm: Path) -> None:
    plain, long = judge(ProcessReward(str(prm), max_tokens=100), "a\n\nb", "x" * 101)
    signed, signed_long = judge(ProcessReward(str(prm), max_tokens=100, signed_steps=True), "a\n\nb", "x" * 101)
    assert [step.score for step in signed.steps] == pytest.approx([2 * step.score - 1 for step in plain.steps])
    assert signed.score == plain.score and (long.steps[0].score, signed_long.steps[0].score) == (0.0, -1.0)


def test_a_separator_of_its_own_divides_the_response(prm: Path) -> None:
    [verdict] = judge(ProcessReward(str(prm), separator=";"), "a;b;c")
    assert [step.end_char for step in verdict.steps] == [2, 4, 5]


def test_what_has_no_steps_or_does_not_fit_is_named_and_leaves_the_others_their_scores(prm: Path) -> None:
    fine, empty, blank, long = judge(ProcessReward(str(prm), max_tokens=100), "a", "", " \n\n ", "x" * 101)
    assert fine.steps and (empty.outcome, blank.outcome, long.outcome) == ("unparseable", "unparseable", "truncated")
    assert (empty.score, empty.steps, long.score, long.steps) == (0.0, (), 0.0, (StepScore(101, 0.0),))
    assert "which reads 100" in long.explanation
    [context] = judge(ProcessReward(str(prm)), "x" * 600)
    assert "which reads 512" in context.explanation
    [many] = judge(ProcessReward(str(prm), max_tokens=100), "a\n\n" * 101)
    assert many.outcome == "truncated" and "101 steps" in many.explanation


def test_a_question_that_does_not_fit_is_no_responses_fault(prm: Path) -> None:
    long = Problem("long", ({"role": "user", "content": "x" * 600},), {})
    for text in ("a", "a\n\n" * 600):
        with pytest.raises(GoldError, match=r"problem 'long': the question alone is 6\d\d tokens"):
            asyncio.run(ProcessReward(str(prm))(long, [Said(text)]))  # type: ignore[list-item]


def test_a_response_of_separators_alone_is_one_step_of_the_lowest_score(prm: Path) -> None:
    whole, separators, blank = judge(ProcessReward(str(prm), separator=";", signed_steps=True), "a;b", ";;", " ")
    assert len(whole.steps) == 2 and blank.steps == ()
    assert (separators.outcome, separators.score, separators.steps) == ("unparseable", 0.0, (StepScore(2, -1.0),))


def test_a_response_that_was_cut_off_is_truncated_with_the_scores_of_its_steps(prm: Path) -> None:
    [verdict] = judge(ProcessReward(str(prm), threshold=0.0), Said("a\n\nb", "length"))
    assert verdict.outcome == "truncated" and len(verdict.steps) == 2


def test_odd_characters_are_judged(prm: Path) -> None:
    assert all(verdict.steps for verdict in judge(ProcessReward(str(prm)), "\ud800", "é\n\n漢", "<eos>", "a\x00b"))


def test_the_class_that_means_right_is_the_one_of_the_training(prm: Path, tmp_path: Path) -> None:
    import shutil

    turned = shutil.copytree(prm, tmp_path / "turned")
    PrmFormat("\n\n", right_label=0, template="chat").save(turned)
    [verdict] = judge(ProcessReward(str(turned)), "a\n\nb")
    assert [step.score for step in verdict.steps] == pytest.approx(expected(prm, "a\n\nb", right=0), abs=1e-5)


def test_a_model_without_its_format_needs_a_separator(prm: Path, tmp_path: Path) -> None:
    import shutil

    bare = shutil.copytree(prm, tmp_path / "bare")
    (bare / "prm.json").unlink()
    with pytest.raises(BadOption, match="has no prm.json, so it is not known what ends a step: give separator"):
        build("process_reward", {"model": str(bare)})
    [verdict] = judge(ProcessReward(str(bare), separator="\n\n"), "a\n\nb")
    assert [step.score for step in verdict.steps] == pytest.approx(expected(prm, "a\n\nb"), abs=1e-5)


def test_a_model_that_is_no_process_reward_model_is_an_error(tiny_model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(VerifierError, match="it is a Qwen2ForCausalLM of 2 classes, not a classifier of tokens"):
        judge(ProcessReward(str(tiny_model_folder), separator="\n"), "a")
    with pytest.raises(VerifierError, match="cannot be loaded"):
        judge(ProcessReward(str(tmp_path / "missing"), separator="\n"), "a")


def test_a_problem_without_its_question_is_an_error(prm: Path) -> None:
    with pytest.raises(GoldError, match="has no messages"):
        asyncio.run(ProcessReward(str(prm))(Problem("p", (), {}), [Said("a")]))  # type: ignore[list-item]


def test_a_judgement_that_is_given_up_leaves_the_verifier_usable_in_any_loop(prm: Path) -> None:
    verifier = ProcessReward(str(prm))

    async def impatient() -> None:
        async with asyncio.timeout(0.001):
            await verifier(PROBLEM, [Said("a" * 400)] * 64)  # type: ignore[list-item]

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    assert judge(verifier, "a")[0].steps


@pytest.mark.parametrize(
    ("error", "said"), [(RuntimeError("CUDA out of memory\nat length"), "CUDA out of memory"), (MemoryError(), "MemoryError")]
)
def test_a_forward_that_fails_is_an_error(prm: Path, error: Exception, said: str) -> None:
    verifier = ProcessReward(str(prm))
    judge(verifier, "a")

    class Failing:
        device = "cpu"

        def __call__(self, **inputs: object) -> None:
            raise error

    verifier._scorer._model = Failing()
    with pytest.raises(VerifierError, match=f"failed: {said}$"):
        judge(verifier, "a")


def test_numbers_that_are_none_are_an_error(prm: Path) -> None:
    verifier = ProcessReward(str(prm))
    judge(verifier, "a")
    verifier._scorer._model.score.bias.data.fill_(math.nan)
    with pytest.raises(VerifierError, match="gave something that is not a number"):
        judge(verifier, "a")


def test_the_event_loop_goes_on_while_the_model_computes(prm: Path) -> None:
    verifier = ProcessReward(str(prm))
    judge(verifier, "a")
    begun, go_on = threading.Event(), threading.Event()
    forward = verifier._scorer._model

    class Slow:
        device = "cpu"

        def __call__(self, **inputs: Any) -> Any:
            begun.set()
            assert go_on.wait(30)
            return forward(**inputs)

    verifier._scorer._model = Slow()

    async def both() -> list[Verdict]:
        judging = asyncio.create_task(verifier(PROBLEM, [Said("a")]))  # type: ignore[list-item]
        while not begun.is_set():
            await asyncio.sleep(0.01)
        go_on.set()  # Only a loop that runs gets here.
        return await judging

    assert asyncio.run(both())[0].steps


@pytest.mark.parametrize(
    "options",
    [
        {"reduce": "sum"},
        {"threshold": 2},
        {"batch_size": 0},
        {"max_tokens": 0},
        {"separator": ""},
        {"dtype": "int8"},
        {"url": "127.0.0.1:8000"},
        {"url": []},
        {"url": ["http://a:8000", "http://a:8000/"]},
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadOption):
        build("process_reward", {"model": "owner/name", "separator": "\n"} | options)


def test_the_format_survives_its_file_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    form = PrmFormat("ки", right_label=0, plain_template="Q: {question}\nA:")
    form.save(tmp_path)
    assert read_format(tmp_path / "prm.json") == form
    for damaged in ("{", "[]", '{"separator": ""}', '{"separator": "a", "more": 1}', '{"separator": 1}'):
        (tmp_path / "prm.json").write_text(damaged)
        with pytest.raises(ValueError, match="holds no format of a process reward model"):
            read_format(tmp_path / "prm.json")


def test_steps_are_written_alike_with_and_without_the_separator_behind_them() -> None:
    plain = PrmFormat("\n\n")
    tokenizer = character_tokenizer()
    from_rows = write_input(PROBLEM.messages, ["a", "b "], tokenizer, plain)
    assert from_rows == write_input(PROBLEM.messages, ["a\n\n", "b\n\n\n"], tokenizer, plain)
    # "1+1?\n" is 5 characters, and so 5 tokens; then a, two line breaks, b, two line breaks.
    assert from_rows.step_places == (7, 10) and len(from_rows.token_ids) == 11
    tagged = PrmFormat("|")
    assert write_input(PROBLEM.messages, ["a|", "b"], tokenizer, tagged) == write_input(PROBLEM.messages, ["a", "b |"], tokenizer, tagged)


MODELS = {"data": [{"id": "m", "max_model_len": 512}]}


@dataclass
class Fake:
    """A server that answers as it is told; `asked` are the bodies it got."""

    url: str
    asked: list[dict[str, Any]]
    answer: Any = None
    models: Any = field(default_factory=lambda: MODELS)
    status: int = 200
    delay: float = 0.0


@pytest.fixture
def fake() -> Iterator[Fake]:
    import time

    told = Fake("", [])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, json.dumps(told.models).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.asked.append(body)
            time.sleep(told.delay)
            answer = told.answer(body) if callable(told.answer) else told.answer
            self._send(told.status, answer if isinstance(answer, bytes) else json.dumps(answer).encode())

        def _send(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(BrokenPipeError):  # Who asked has lost patience.
                self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield told
    server.shutdown()
    server.server_close()


def rows(value: Sequence[Any]) -> Any:
    return lambda body: {"data": [{"index": index, "data": [value] * len(ids)} for index, ids in enumerate(body["input"])]}


def test_a_server_is_asked_for_the_logits_of_the_tokens(prm: Path, fake: Fake) -> None:
    fake.answer = rows([0.0, math.log(3)])  # Odds of 3 to 1.
    [verdict, empty] = judge(ProcessReward(str(prm), url=fake.url), "a\n\nb", "")
    assert [step.score for step in verdict.steps] == pytest.approx([0.75, 0.75]) and empty.outcome == "unparseable"
    assert fake.asked[0]["model"] == "m" and fake.asked[0]["task"] == "token_classify" and fake.asked[0]["use_activation"] is False


GARBAGE = [
    b"<html>",
    {},
    {"data": []},
    {"data": [{"index": 0, "data": [[0.0, 1.0]]}]},
    rows([0.5]),
    rows(["a", "b"]),
    rows([None, None]),
    rows(["0.5", "1.5"]),
    rows("12"),
    rows({"0": -9.0, "1": 9.0}),
    rows([True, False]),
    rows([0.99, 0.01]),
    rows([10**400, 1]),
    rows([0.0, 1.0, 2.0]),
    lambda body: {"data": rows([9.0, 0.0])(body)["data"] * 2},
    lambda body: {"data": [{"index": 1, "data": [[9.0, 0.0]] * len(body["input"][0])}]},
    b" " * 2_000_000 + b"{}",
    lambda body: b'{"data": [{"index": 0, "data": [' + b",".join([b"[NaN, 1]"] * len(body["input"][0])) + b"]}]}",
]


@pytest.mark.parametrize("answer", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_from_a_server_is_an_error_not_a_score(prm: Path, fake: Fake, answer: Any) -> None:
    fake.answer = answer
    with pytest.raises(VerifierError):
        judge(ProcessReward(str(prm), url=fake.url), "a\n\nb")


@pytest.mark.parametrize("longest", [0, -1, True, 1.5, "512", None])
def test_a_length_that_is_none_makes_no_response_too_long(prm: Path, fake: Fake, longest: Any) -> None:
    fake.models = {"data": [{"id": "m", "max_model_len": longest}]}
    with pytest.raises(VerifierError, match="no list of one model"):
        judge(ProcessReward(str(prm), url=fake.url), "a")


def test_a_server_that_gives_probabilities_is_told_apart_by_name(prm: Path, fake: Fake) -> None:
    fake.answer = rows([0.99, 0.01])
    with pytest.raises(VerifierError, match="probabilities: this server does not know use_activation=false"):
        judge(ProcessReward(str(prm), url=fake.url), "a")


def test_a_server_that_fails_is_slow_or_is_down_is_an_error(prm: Path, fake: Fake) -> None:
    fake.answer, fake.status = {"error": "no memory"}, 500
    with pytest.raises(VerifierError, match="answered with status 500.*no memory"):
        judge(ProcessReward(str(prm), url=fake.url), "a")
    fake.answer, fake.status, fake.delay = rows([0.0, 1.0]), 200, 2.0
    with pytest.raises(VerifierTimeout, match="did not answer within 0.2 s"):
        judge(ProcessReward(str(prm), url=fake.url, timeout_seconds=0.2), "a")
    with pytest.raises(VerifierError, match="cannot be reached"):
        judge(ProcessReward(str(prm), url="http://127.0.0.1:9"), "a")


def test_another_server_is_asked_where_one_is_down(prm: Path, fake: Fake) -> None:
    fake.answer = rows([0.0, 0.0])
    [verdict] = judge(ProcessReward(str(prm), url=["http://127.0.0.1:9", fake.url]), "a")
    assert verdict.score == 0.5


def test_another_server_is_asked_where_one_answers_garbage_and_the_error_names_who_did(prm: Path, fake: Fake) -> None:
    answers = iter([{"data": []}, None])
    fake.answer = lambda body: next(answers) or rows([0.0, 0.0])(body)
    again = fake.url.replace("127.0.0.1", "localhost")
    [verdict] = judge(ProcessReward(str(prm), url=[fake.url, again]), "a")
    assert verdict.score == 0.5
    fake.answer = {"data": []}
    with pytest.raises(VerifierError, match=f"{fake.url}/pooling answered with something that is no table of two logits"):
        judge(ProcessReward(str(prm), url=fake.url), "a")
