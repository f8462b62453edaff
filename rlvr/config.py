"""Every setting of a training run: frozen pydantic models, read from YAML and `a.b=c` overrides.

Validators check, they never repair. The resolved configuration is saved with the run and reproduces it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rlvr.algorithm_settings import check_algorithm
from rlvr.algorithms import AlgorithmConfig, GrpoConfig
from rlvr.settings import Settings

PREPARED_BY_RECIPE = "(prepared by the recipe)"
"""Stands for `model.path` or `data.path` in a recipe whose `main` makes the model or the data."""


class LoraConfig(Settings):
    """Low-rank adapters instead of full fine-tuning; the reference model is the base with the adapter off."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: list[str] | Literal["all-linear"] = "all-linear"
    quantization: Literal["none", "nf4"] = "none"
    """nf4: keep the frozen projections of the layers in 4 bits (QLoRA, arXiv:2305.14314); on one process, with the extra bitsandbytes."""


class ModelConfig(Settings):
    """The policy's weights and how they are computed with."""

    path: str
    """A Hugging Face name or a local `save_pretrained` folder."""
    revision: str | None = None
    tokenizer: str | None = None
    """Defaults to `path`."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type of matrix products; weights and optimizer stay float32. auto: bfloat16 where the hardware multiplies it natively."""
    weights_dtype: Literal["float32", "bfloat16"] = "float32"
    """Storage type of the weights being trained."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    attention: Literal["auto", "packed", "padded"] = "auto"
    """packed: no work on padding, one copy of a shared prompt. padded: the model's own attention on padded rows, for models without
    attention backends. auto: packed if a check at start agrees with the model's own attention, padded otherwise."""
    kernels: Literal["own", "liger"] = "own"
    """liger: norms, rotations and MLPs by Liger's kernels, on a GPU, once they agree with the model's own on a probe."""
    gradient_checkpointing: bool = False
    """Keep each layer's input only and compute the rest again in the backward: a third more work, a fraction of the memory."""
    offload_activations: bool = False
    """Keep what the backward needs in the host's memory; with gradient_checkpointing little is left on the device."""
    lora: LoraConfig | None = None
    trust_remote_code: bool = False


class OptimizerConfig(Settings):
    """AdamW with warm-up and a schedule."""

    kind: Literal["adamw", "adamw_8bit"] = "adamw"
    """adamw_8bit keeps its moments in 8 bits, a quarter of the memory; on one process, with the extra bitsandbytes."""
    learning_rate: float = Field(1e-6, gt=0)
    warmup_steps: int = Field(0, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    min_learning_rate: float = Field(0.0, ge=0)
    """What linear and cosine end at."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)


class DeepSpeedConfig(Settings):
    """Training on several processes, or with less memory on one, by DeepSpeed; torchrun or deepspeed starts them (docs/scaling.md)."""

    zero_stage: Literal[0, 1, 2, 3] = 2
    """What is divided among the processes: nothing, the optimizer's state, gradients as well, the weights as well."""
    offload_optimizer: bool = False
    """Keep the optimizer's state, and take its step, in the host's memory; stages 1 to 3."""
    offload_parameters: bool = False
    """Keep the divided weights in the host's memory; stage 3."""
    offload_reference: bool = False
    """Keep the frozen reference in the host's memory while it is not asked; stages 0 to 2. Stage 3 divides it."""
    sequence_parallel_size: int = Field(1, ge=1)
    """Processes that share the tokens of a micro-batch (Ulysses), for sequences too long for one; divides the number of processes."""
    balance: bool = True
    """Exchange samples among the processes, so that none waits long for another's longer completions."""
    timeout_minutes: float = Field(240.0, gt=0)
    """How long a process waits for the others at one point: longer than the longest rollouts of a step. Dead ones are noticed at once."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further settings of DeepSpeed's configuration, as they are; they replace rlvr's."""

    @model_validator(mode="after")
    def _check_stage(self) -> DeepSpeedConfig:
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("offload_optimizer=true needs zero_stage 1, 2 or 3")
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError(f"offload_parameters=true needs zero_stage=3, not {self.zero_stage}")
        if self.offload_reference and self.zero_stage == 3:
            raise ValueError("offload_reference=true has no meaning with zero_stage=3, which divides the reference")
        return self


class FieldMap(Settings):
    """Which field of a row holds what. Exactly one of `question` and `messages` is read."""

    question: str | None = "question"
    messages: str | None = None
    answer: str | None = "answer"
    """Becomes `reference = {"answer": …}`."""
    reference: str | None = None
    """A field that already holds a whole reference object; overrides `answer`."""
    tests: str | None = None
    """A field that holds unit tests: a list of assertions, an object, or either as JSON text; becomes `reference = {"tests": …}`."""
    solution: str | None = None
    """Beside `tests`: a field with a right program. Never trained on; the dry run and `rlvr verify --validate` try the tests on it."""
    id: str | None = None
    """Defaults to the row number."""
    tags: str | None = None
    """A text or a list of texts, by which the verifier `by_tag` routes a problem."""
    response: str | None = "response"
    """Supervised data only: the demonstration."""


class DataConfig(Settings):
    """Where problems come from and how they become prompts."""

    path: str
    """A Hugging Face dataset name, or a local .jsonl, .json or .parquet file."""
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    fields: FieldMap = FieldMap()
    answer_pattern: str | None = None
    r"""A regular expression whose first group is the gold answer within the answer field; GSM8K: `####\s*(.+)`."""
    limit: int | None = Field(None, ge=1)
    on_bad_row: Literal["error", "skip"] = "error"
    template: Literal["auto", "chat", "plain"] = "auto"
    """chat: the tokenizer's chat template. plain: `plain_template`, for base models. auto: chat where the tokenizer has a template."""
    plain_template: str = "{question}\n"
    system_prompt: str | None = None
    instruction: str = ""
    """Appended to the last user message, after a blank."""
    response_prefix: str = ""
    """Text the policy's answer is made to begin with, such as `<think>`; part of the prompt, so not trained on."""
    max_prompt_tokens: int = Field(1024, ge=1)
    """Longer prompts are dropped and counted, never truncated."""


class HeldOutConfig(Settings):
    """Problems never trained on. Give `data`, or a number or share of rows to hold back from the training data."""

    data: DataConfig | None = None
    num_problems: int | None = Field(None, ge=1)
    every: int = Field(0, ge=0)
    """Evaluate every so many steps; 0: only at the start and the end."""
    num_samples: int = Field(1, ge=0)
    """Completions per problem at the training temperature, beside the greedy one."""


class EvaluationConfig(Settings):
    """A suite that a run is evaluated on while it trains, with its own prompt settings."""

    suite: str
    """A suite or a single benchmark; `rlvr list suites`."""
    every: int = Field(0, ge=0)
    """Evaluate every so many steps; 0: only at the start and the end."""
    limit: int | None = Field(None, ge=1)
    """Only the first problems of each benchmark."""
    num_samples: int = Field(1, ge=1)
    """Answers to each problem: one is greedy, several are drawn at the training temperature."""
    max_new_tokens: int | None = Field(None, ge=1)
    """None: as in training."""
    data_folder: str | None = None
    """A folder with the benchmarks' files; None: Hugging Face."""


MEASURED = ("held_out/", "eval/")
"""Where the names of what is measured apart from training begin."""


class RunEarlyStopConfig(Settings):
    """Ends a run that no longer gains, or that is good enough."""

    metric: str = "held_out/sampled_accuracy"
    """What is measured on held-out problems (held_out/…) or benchmarks (eval/math/gsm8k/avg); higher is better."""
    patience: int | None = Field(None, ge=1)
    """Measurements in a row without a new best, after which the run ends; None: it goes on."""
    min_gain: float = Field(0.0, ge=0)
    """By how much a measurement must surpass the best to be a new best."""
    reached: float | None = None
    """End as soon as this is measured."""

    @model_validator(mode="after")
    def _check_stop(self) -> RunEarlyStopConfig:
        check_measured("early_stop.metric", self.metric)
        if self.patience is None and self.reached is None:
            raise ValueError("an early stop needs patience, reached, or both")
        return self


def check_measured(setting: str, metric: str) -> None:
    """Raises: ValueError: the metric is not one of those that are measured on problems apart from training."""
    if not metric.startswith(MEASURED):
        raise ValueError(
            f"{setting}={metric!r} is not measured on problems kept from training: name one that begins with held_out/ or eval/"
        )


class VerifierConfig(Settings):
    """A verifier by registered name or dotted path `package.module:name`, with its own options."""

    name: str = "exact_match"
    options: dict[str, Any] = Field(default_factory=dict)
    timeout_seconds: float = Field(60.0, gt=0)
    """Deadline for one group; past it the group counts as not judged."""
    max_attempts: int = Field(2, ge=1)
    """How often a group that could not be judged is tried before it is dropped."""

    @property
    def asks_prepared_model(self) -> bool:
        """Whether a model that the recipe makes when it runs is to stand in the options."""
        return PREPARED_BY_RECIPE in str(self.options)


class EnvironmentConfig(Settings):
    """An environment that answers the policy's replies, by registered name or dotted path `package.module:name`."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    max_turns: int = Field(4, ge=1)
    """Replies of the policy in one episode."""
    timeout_seconds: float = Field(60.0, gt=0)
    """Deadline of one answer; past it the group counts as not judged."""


class SamplingConfig(Settings):
    """How training completions are drawn."""

    max_new_tokens: int = Field(1024, ge=1)
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    allow_truncated_vocabulary: bool = False
    """Permit top_p / top_k in training although the policy's log-probs do not know the truncation."""

    @model_validator(mode="after")
    def _refuse_truncated_vocabulary(self) -> SamplingConfig:
        if (self.top_p < 1 or self.top_k > 0) and not self.allow_truncated_vocabulary:
            raise ValueError(
                f"training samples with top_p={self.top_p}, top_k={self.top_k}, but the policy's log-probs speak of the whole vocabulary: "
                "set top_p=1 and top_k=0, or allow_truncated_vocabulary=true if you mean it"
            )
        return self


class VllmConfig(Settings):
    """How vLLM is set up; engine `vllm`, and `rlvr serve` for engine `vllm_server`."""

    kv_cache_gib: float = Field(1.0, gt=0)
    """Memory of the key-value cache on a CPU, GiB."""
    gpu_memory_utilization: float = Field(0.4, gt=0, le=1)
    """Share of a GPU's memory that vLLM may take in all; in the trainer's process the policy needs the rest."""
    tensor_parallel_size: int = Field(1, ge=1)
    enforce_eager: bool | None = None
    """No compiled graphs; None: on a CPU, where compiling takes longer than it saves, not on a GPU."""
    sleep: bool = True
    """On a GPU, in the trainer's process and without staleness: give weights and cache back while the policy is updated."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of vLLM's engine, as they are."""


class ServersConfig(Settings):
    """The vLLM servers that engine `vllm_server` samples from, and its patience with them."""

    urls: list[str] = Field(default_factory=lambda: ["http://127.0.0.1:8000"])
    """Where they listen; `rlvr serve` starts them."""
    request_timeout_seconds: float = Field(600.0, gt=0)
    """Deadline of one group's completions; past it they are asked of another server."""
    health_every_seconds: float = Field(5.0, gt=0)
    health_timeout_seconds: float = Field(10.0, gt=0)
    """A server that does not answer this long is left out, and its requests go to others."""
    stall_timeout_seconds: float = Field(120.0, gt=0)
    """A server that owes completions and writes no token for this long is left out, though it answers health checks."""
    recovery_timeout_seconds: float = Field(300.0, gt=0)
    """How long the run waits for any server to be there before it ends."""


class EngineConfig(Settings):
    """Which engine samples."""

    name: str = "transformers"
    """transformers: the policy's own module. vllm: vLLM in this process. vllm_server: any number of vLLM servers."""
    max_batch_size: int = Field(256, ge=1)
    """Rows decoded at once; waiting rows take the place of finished ones."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type while decoding; auto: the model's."""
    vllm: VllmConfig = VllmConfig()
    servers: ServersConfig = ServersConfig()


class WeightSyncConfig(Settings):
    """How an engine with weights of its own is brought to the policy's, and how that is checked."""

    verify_every: int = Field(10, ge=1)
    """Syncs between checks of the engine's log-probs of a fixed probe against the policy's; the first is always checked."""
    tolerance: float | None = Field(None, gt=0)
    """Mean absolute difference on the probe, nats, past which the run ends; None: 1e-3 in float32, 0.05 in bfloat16."""
    timeout_seconds: float = Field(300.0, gt=0)
    """Deadline of one sync."""
    in_flight: Literal["finish", "continue"] = "finish"
    """What becomes of completions that are being written when new weights come: they finish on the old ones, or continue on the new."""
    adapters: Literal["auto", "merged", "alone"] = "auto"
    """With model.lora: send the adapters alone, or the weights with the adapters merged in. auto: alone where the engine takes them."""
    transport: Literal["file", "nccl", "ipc"] = "file"
    """How weights reach servers: a folder that trainer and servers share, NCCL between GPUs, or CUDA memory handles on one node."""
    folder: str | None = None
    """For file: the shared folder; None: `weights` in the run's folder."""


class BatchConfig(Settings):
    """How much is sampled and learned from in one step."""

    prompts_per_step: int = Field(32, ge=1)
    group_size: int = Field(8, ge=1)
    minibatches_per_step: int = Field(1, ge=1)
    """Optimizer steps per batch of rollouts; 1 is strictly on-policy."""
    tokens_per_microbatch: int = Field(4096, ge=1)
    max_staleness: int = Field(0, ge=0)
    """Policy versions a rollout may lag behind when it is trained on; 0 is synchronous."""
    oversampling: float = Field(0.0, ge=0)
    """Groups sampled beyond those a step needs, as a share of them. The step begins when enough are finished; what the next one could not
    use any more is cut and its prompt comes again. Hides the slowest groups, and prefers those whose completions are short."""
    max_resampling: int = Field(10, ge=1)
    """Dynamic sampling draws at most this many times `prompts_per_step` prompts for one step."""
    share_prompts: bool = True

    @model_validator(mode="after")
    def _refuse_empty_minibatches(self) -> BatchConfig:
        if self.minibatches_per_step > self.prompts_per_step * self.group_size:
            raise ValueError(
                f"minibatches_per_step={self.minibatches_per_step} is more than the {self.prompts_per_step} x {self.group_size} "
                "completions of a step: lower minibatches_per_step, or raise prompts_per_step or group_size"
            )
        return self


class SupervisedMixConfig(Settings):
    """A cross-entropy term beside the policy gradient: demonstrations or pre-training text."""

    data: DataConfig
    weight: float = Field(0.1, gt=0)
    samples_per_step: int = Field(32, ge=1)


class CheckpointConfig(Settings):
    """When the whole state is saved, and what is kept."""

    every: int = Field(0, ge=0)
    """Steps between checkpoints; 0: only at the end."""
    keep_last: int = Field(2, ge=1)
    keep_best: bool = True
    """Also keep the best checkpoint."""
    best_by: str = "held_out/sampled_accuracy"
    """What the best is chosen by: a metric of held-out problems (where nothing is sampled, the greedy accuracy), or eval/math/gsm8k/avg."""

    @model_validator(mode="after")
    def _check_best(self) -> CheckpointConfig:
        check_measured("checkpoint.best_by", self.best_by)
        return self


class GuardConfig(Settings):
    """Thresholds past which a run warns, and `patience` steps later stops."""

    patience: int = Field(20, ge=1)
    max_zero_variance_share: float = Field(1.0, gt=0, le=1)
    """Share of groups whose completions all have the same reward."""
    max_truncated_share: float = Field(0.9, gt=0, le=1)
    max_failure_rate: float = Field(0.05, ge=0, le=1)
    """Share of the last 200 groups that the verifier could not judge; stops at once."""
    min_entropy: float = Field(1e-3, ge=0)
    """Nats per token; 0 switches the guard off."""
    max_audit_gap: float | None = Field(None, gt=0)
    """With `audited` or `with_steps`: how far the mean score of what can be exploited may stand above the other's; None: it is only
    reported."""
    max_logprob_drift: float = Field(0.1, gt=0)
    """Mean absolute difference of engine and policy log-probs on tokens sampled by the current version, nats."""


class RolloutsConfig(Settings):
    """Groups on disk, to tell a sampling problem from a learning problem."""

    dump: bool = False
    """Write every group that is trained on, with tokens and log-probs, to `groups/` in the run's folder."""
    replay: str | None = None
    """A folder of dumped groups to learn from, in their order; nothing is sampled but held-out problems."""


class TrackingConfig(Settings):
    """Where metrics go beside `metrics.jsonl`."""

    sinks: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(default_factory=lambda: ["tensorboard"])
    project: str = "rlvr"
    rollouts_every: int = Field(1, ge=0)
    """Steps between saved rollout tables; 0: none."""


class EarlyStopConfig(Settings):
    """Ends supervised training once the model is good enough: a warm-up that goes on too long leaves reinforcement nothing to explore."""

    data: DataConfig
    """Validation problems; never the held-out test."""
    verifier: VerifierConfig = VerifierConfig()
    sampling: SamplingConfig = SamplingConfig()
    accuracy: float = Field(0.3, gt=0, le=1)
    """Sampled accuracy at which to stop."""
    every: int = Field(25, ge=1)
    """Steps between checks."""


class SftConfig(Settings):
    """One supervised training run on demonstrations."""

    name: str | None = None
    runs_folder: str = "runs"
    seed: int = 0
    num_steps: int = Field(1000, ge=1)
    num_threads: int | None = Field(None, ge=1)
    model: ModelConfig
    data: DataConfig
    """Rows with a response; the prompt is not trained on."""
    samples_per_step: int = Field(64, ge=1)
    tokens_per_microbatch: int = Field(4096, ge=1)
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=1e-5)
    early_stop: EarlyStopConfig | None = None
    engine: EngineConfig = EngineConfig()
    """Samples for the early stop."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    tracking: TrackingConfig = TrackingConfig()
    deepspeed: DeepSpeedConfig | None = None
    """For several processes; None: one process, plain torch."""
    deterministic: bool = True


class RunConfig(Settings):
    """One training run."""

    name: str | None = None
    """Folder name under `runs_folder`; defaults to recipe, algorithm and time."""
    runs_folder: str = "runs"
    seed: int = 0
    num_steps: int = Field(100, ge=1)
    num_threads: int | None = Field(None, ge=1)
    """CPU threads for matrix work; defaults to torch's choice."""
    model: ModelConfig
    algorithm: AlgorithmConfig = GrpoConfig()
    data: DataConfig
    held_out: HeldOutConfig = HeldOutConfig()
    evaluations: list[EvaluationConfig] = Field(default_factory=list)
    """Benchmarks to evaluate on while training."""
    early_stop: RunEarlyStopConfig | None = None
    verifier: VerifierConfig = VerifierConfig()
    sampling: SamplingConfig = SamplingConfig()
    environment: EnvironmentConfig | None = None
    """For several turns and tools; without one each prompt is answered once. `sampling.max_new_tokens` bounds the whole episode."""
    engine: EngineConfig = EngineConfig()
    weight_sync: WeightSyncConfig = WeightSyncConfig()
    batch: BatchConfig = BatchConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    supervised_mix: SupervisedMixConfig | None = None
    checkpoint: CheckpointConfig = CheckpointConfig()
    guards: GuardConfig = GuardConfig()
    tracking: TrackingConfig = TrackingConfig()
    rollouts: RolloutsConfig = RolloutsConfig()
    deepspeed: DeepSpeedConfig | None = None
    """For several processes; None: one process, plain torch."""
    deterministic: bool = True
    """Deterministic kernels where torch has them."""

    @model_validator(mode="after")
    def _check_algorithm(self) -> RunConfig:
        check_algorithm(self.algorithm, group_size=self.batch.group_size, max_new_tokens=self.sampling.max_new_tokens)
        if self.algorithm.needs_values and self.environment is not None:
            raise ValueError(
                f"algorithm.advantage={self.algorithm.advantage} continues completions from their middle, and an episode with "
                f"environment.name={self.environment.name} cannot be begun there: leave the environment out, or set another advantage"
            )
        if self.algorithm.learns_rewards and self.deepspeed is not None and self.deepspeed.sequence_parallel_size > 1:
            raise ValueError(
                f"deepspeed.sequence_parallel_size={self.deepspeed.sequence_parallel_size} does not go with algorithm.advantage="
                f"{self.algorithm.advantage}, whose reward model reads whole sequences in each process: set it to 1"
            )
        kl, completions = self.algorithm.kl, self.batch.prompts_per_step * self.batch.group_size
        if kl.controller == "adaptive" and completions >= 5 * kl.horizon:  # A step multiplies by 1 - 0.2 * completions / horizon or more.
            raise ValueError(
                f"kl.horizon={kl.horizon} with {completions} completions a step would make the adaptive KL coefficient zero or negative: "
                f"set algorithm.kl.horizon above {completions // 5}"
            )
        return self
