"""Settings of everything that is done with trained models: answers, judges, redundancy, searches, cost."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from visiontokens.config.section import Count, Section, Size
from visiontokens.config.training import Attention


class JudgeConfig(Section):
    """A language model that judges answers, behind an endpoint that speaks OpenAI's chat completions."""

    url: str = Field(pattern=r"^https?://")
    """Address up to the version, such as `https://api.openai.com/v1`."""
    model: str = Field(min_length=1)
    """Name of the model there; with the address it is the judge's id."""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; none is sent where it is not set."""
    benchmarks: list[str] = ["mmvet", "llava_bench"]
    """Benchmarks whose answers it judges in the workflow; video sets that are not listed stay with exact match."""
    runs: Size = 1
    """Times that every answer is judged (MM-Vet's paper: 5; LLaVA-Bench: 3)."""
    attempts: Size = 6
    """Tries of a request that fails for want of an answer."""
    backoff: float = Field(default=1.0, ge=0)
    """Seconds before the second try; doubled for each further one, up to a minute."""
    timeout: float = Field(default=60.0, gt=0)
    """Seconds without an answer that end a try."""
    cache: Path = Path("data/judge/replies.jsonl")
    """Replies by hash of (judge, prompt, decoding), one a line; a reply is paid for once."""


class EvaluateConfig(Section):
    """Prediction and scoring."""

    benchmarks: list[str] = [
        "vqav2", "gqa", "vizwiz", "scienceqa", "textvqa", "pope", "mme", "mmbench", "mmbench_cn",
    ]  # fmt: skip
    """Benchmarks by name (`config/benchmarks.tsv`)."""
    batch_size: Size = 32
    """Questions per forward pass; part of a prediction's identity."""
    max_new_tokens: Size = 16
    """Greedy decoding stops here at the latest, or where LLaVA-1.5 stops on a benchmark (128 tokens, on some 1,024)."""
    limit: Count = 0
    """Only the first so many questions of each benchmark; 0 = all."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` = bf16 autocast on a GPU that computes it natively, fp32 on a CPU."""
    attention: Attention = "auto"
    """Kernel, as in training."""
    cache: bool = False
    """Keep answers in `results/<scale>/cache`, by hash of weights, method, prompt, image, decoding and code, and look
    there first; with `batch_size` 1 only, where an answer does not depend on the questions beside it."""
    bootstrap: Size = 2000
    """Resamples for each confidence interval."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Level of the confidence intervals."""
    policy: Literal["official", "correct"] = "correct"
    """Where an official script has a quirk: as it computes, or what it means to compute. A score shows both."""
    judge: JudgeConfig | None = None
    """Who judges free answers; null: an offline stand-in, whose scores no table takes."""

    @model_validator(mode="after")
    def _cached_one_by_one(self) -> EvaluateConfig:
        if self.cache and self.batch_size != 1:
            raise ValueError(f"batch_size: expected 1 with cache: true, found {self.batch_size}")
        return self


class RedundancyConfig(Section):
    """LLaVolta Fig. 1: pooling at test time on the un-retrained baseline."""

    table: Path = Path("config/pooling.tsv")
    """Grid of (layer of 32, stride) points."""
    model: str = "none"
    """Experiment whose weights are probed."""
    benchmarks: list[str] = ["gqa", "textvqa", "pope", "mmbench"]
    """Benchmarks of the curve."""
    limit: Count = 400
    """Questions per benchmark and point; 0 = all."""
    attention_images: Size = 64
    """Images for the attention statistics."""
    similarity_images: Size = 200
    """Images for the feature-similarity statistics."""
    probe_images: Size = 400
    """Images for the linear probes of the tower's layers."""


class SearchConfig(Section):
    """Searching a method's parameters (G-Search, P-Sigmoid) on questions of the instruction data, never of a test."""

    questions: Size = 500
    """Calibration questions, one an image."""
    grid: Size = 16
    """G-Search: steps of a layer's share of tokens."""
    trials: Size = 30
    """P-Sigmoid: schedules that the Bayesian optimisation tries."""


class EfficiencyConfig(Section):
    """Measured prefill latency and peak memory."""

    repeats: Size = 20
    """Timed prefills per measurement."""
    warmup: Count = 3
    """Untimed prefills before them."""
    text_tokens: Size = 40
    """Length of the question in the timed prompt."""
    frames: Size = 1
    """Frames of the timed prompt: 1 is an image, more are a video."""
