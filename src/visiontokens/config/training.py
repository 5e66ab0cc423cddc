"""Settings of the two training stages."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from visiontokens.config.section import Count, Fraction, Section, Size

Attention = Literal["auto", "sdpa", "flash_attention_2", "flash_attention_3"]


class LoraSettings(Section):
    """Low-rank adapters on every linear map of the decoder layers, merged into the weights at the end."""

    rank: Size = 128
    """Rank of the adapters (LLaVA's script: 128)."""
    alpha: Size = 256
    """Adapters are scaled by alpha / rank."""
    dropout: Fraction = 0.05
    """Dropout of the adapters' inputs."""


class TrainStageConfig(Section):
    """What the two training stages of LLaVA (align, then tune) have in common."""

    annotations: Path = Path("instruct/llava_v1_5_mix_mini.json")
    """LLaVA-format JSON, relative to the data folder."""
    images: Path = Path("instruct/images")
    """Folder the records' `image` entries are relative to, relative to the data folder."""
    image_set: str = "instruct"
    """Set in `images.tsv` whose cached features hold these images."""
    samples: Count = 0
    """Use the first so many records of the shuffled set; 0 = all."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the samples."""
    batch_size: Size = 16
    """Samples per optimizer step."""
    micro_batch_size: Size = 4
    """Samples per forward pass and process; gradients accumulate up to `batch_size` over all processes."""
    learning_rate: float = Field(default=1.5e-3, gt=0)
    """Peak of the cosine schedule."""
    connector_learning_rate: float | None = Field(default=None, gt=0)
    """Peak for projector and compressor (LLaVA's `mm_projector_lr`); null = the same."""
    warmup_ratio: Fraction = 0.03
    """Share of the steps with linearly rising learning rate."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW weight decay."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradient clipping; 0 = off."""
    isolate_turns: bool = True
    """Turns of a conversation see the image and themselves only, as in single-turn evaluation."""
    caption_weight: float = Field(default=1.0, ge=0)
    """Loss weight of the tokens of a caption turn."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` = bf16 autocast on a GPU that computes it natively, fp32 on a CPU."""
    saved_precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the final weights' file; the released checkpoints of both papers hold 16 bits."""
    attention: Attention = "auto"
    """Kernel: `auto` = flash attention where it is importable and right for device, dtype and method, else SDPA."""
    packing: bool = False
    """Join the samples of a micro-batch into one row without padding; they do not see each other."""
    gradient_checkpointing: bool = False
    """Keep only each decoder layer's input and compute the rest again in the backward pass."""
    tf32: bool = False
    """Let a GPU round the inputs of float32 matrix products to TF32."""
    lora: LoraSettings | None = None
    """Train adapters in place of the language model's weights; null = full fine-tuning."""
    save_every: Count = 100
    """Optimizer steps between rolling checkpoints; 0 = none."""
    deepspeed: Path | None = None
    """DeepSpeed configuration (`config/deepspeed`), for models that one device does not hold; null = plain data
    parallelism."""
    template: Literal["plain", "v1"] = "v1"
    """Prompt template of LLaVA-1.5."""


class AlignConfig(TrainStageConfig):
    """Stage 1: projector and compressor learn from captions; everything else is frozen."""

    annotations: Path = Path("pretrain/blip_laion_cc_sbu_mini.json")
    """LLaVA-format JSON, relative to the data folder."""
    images: Path = Path("pretrain/images")
    """Folder the records' `image` entries are relative to, relative to the data folder."""
    image_set: str = "pretrain"
    """Set in `images.tsv` whose cached features hold these images."""
    epochs: float = Field(default=2.0, gt=0)
    """Passes over the samples."""
    learning_rate: float = Field(default=4e-3, gt=0)
    """Peak of the cosine schedule."""
    warmup_ratio: Fraction = 0.15
    """Share of the steps that warms the rate up; with 0.03 at this rate the wide projectors of MBTF stop learning."""
    template: Literal["plain", "v1"] = "plain"
    """Prompt template of LLaVA-1.5."""


class TuneConfig(TrainStageConfig):
    """Stage 2: language model, projector and compressor learn from the instruction mix."""

    caption_weight: float = Field(default=0.3, ge=0)
    """Loss weight of the tokens of a caption turn."""


class TrainConfig(Section):
    """Both stages; the vision tower stays frozen throughout."""

    align: AlignConfig = AlignConfig()
    """Stage 1, on captions."""
    tune: TuneConfig = TuneConfig()
    """Stage 2, on instructions."""
