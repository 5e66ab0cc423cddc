"""Settings of what is learned from: the generated world, videos, backbones and cached features."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from visiontokens.config.section import Count, Section, Size


class WorldConfig(Section):
    """Sizes of the generated world (`data/miniworld`); every split is disjoint by scene and by digit instance."""

    seed: Count = 0
    """Root of every random stream of the world."""
    pretrain: Size = 1600
    """Caption records (one image each) of the alignment stage."""
    instruct: Size = 2000
    """Instruction records with an image (one image each)."""
    text_only: Count = 200
    """Instruction records without an image."""
    validation_images: Size = 400
    """Held-out images on which every choice is made."""
    validation_questions: Size = 8
    """Questions per validation image."""
    vqav2_questions: Size = 1200
    """VQAv2-style questions."""
    vqav2_images: Size = 300
    """Images they share."""
    gqa_questions: Size = 1200
    """GQA-style questions."""
    gqa_images: Size = 300
    """Images they share."""
    vizwiz_questions: Size = 1000
    """VizWiz-style questions, one image each (blurred, cropped, unanswerable)."""
    scienceqa_image: Size = 600
    """ScienceQA-style problems with an image."""
    scienceqa_text: Count = 500
    """ScienceQA-style problems without one."""
    textvqa_questions: Size = 1000
    """TextVQA-style questions, 1.6 to an image."""
    pope_questions: Size = 600
    """POPE rows in each of the three files (random, popular, adversarial)."""
    mme_lines: Size = 84
    """Lines in each of the 14 MME task files; two lines belong to one image."""
    mmbench_questions: Size = 1000
    """Base questions of MMBench and of MMBench-CN; circular rotations come on top."""


class ClipsConfig(Section):
    """Sizes of the generated clips, which lie beside the world's images and share none of their random streams."""

    seed: Count = 0
    """Root of every random stream of the clips."""
    length: int = Field(default=16, ge=4)
    """Frames of a clip's file; a model reads `video.frames` of them."""
    train: Size = 240
    """Training clips, each with all its questions in one record."""
    images: Count = 480
    """Image records of the instruction mix that are trained on beside the clips."""
    questions: Size = 8
    """Questions per training clip."""
    msvd_questions: Size = 400
    """MSVD-QA-style questions."""
    msvd_videos: Size = 80
    """Clips they share."""
    activitynet_questions: Size = 400
    """ActivityNet-QA-style questions."""
    activitynet_videos: Size = 80
    """Clips they share."""


class FurtherConfig(Section):
    """Sizes of the generated benchmarks that only some scales ask for (by naming them in `evaluate.benchmarks`).

    They lie beside the world and share none of its random streams.
    """

    seed: Count = 0
    """Root of every random stream of these benchmarks."""
    seed_questions: Size = 720
    """SEED-Bench-style questions of nine types."""
    seed_images: Size = 240
    """Images they share."""
    mmmu_questions: Size = 520
    """MMMU-style questions of thirteen subjects; one or two images each."""
    mmvet_questions: Size = 240
    """MM-Vet-style questions, one image each."""


class VideoConfig(Section):
    """Videos: how many frames a model reads, where training clips lie, and what is generated."""

    frames: Size = 8
    """Frames of a video that a model reads, evenly spaced from the first to the last (Video-LLaVA: 8)."""
    videos: Path = Path("video/videos")
    """Folder that the `video` entries of training records are relative to, relative to the data folder."""
    clips: ClipsConfig | None = None
    """Sizes of the generated clips; null where a scale has no videos, or official ones."""


class TowerPretrainConfig(Section):
    """How the mini vision tower is made from nothing (`train/backbones/tower`)."""

    seed: Count = 0
    """Seeds weights and samples."""
    crop_steps: Count = 6000
    """Steps of dense patch labels on packed 48 px crops."""
    crop_batch: Size = 8
    """Crops per step (small batches learn digits several times faster per image than batches of 24)."""
    packed_steps: Count = 150
    """Steps of dense patch labels on packed whole images, so that attention meets the full grid."""
    packed_batch: Size = 4
    """Packed images per step."""
    contrastive_steps: Count = 300
    """Steps of image-caption contrast on whole scenes."""
    contrastive_batch: Size = 16
    """Scenes per contrastive step."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Peak rate on crops; a third of it on packed images."""
    contrastive_rate: float = Field(default=1e-3, gt=0)
    """Peak rate of the contrastive phase."""
    dense_weight: float = Field(default=0.3, ge=0)
    """Weight of the dense loss in the contrastive phase."""
    dense_layers: Size = 5
    """The dense loss reads the output of this layer."""
    probe_images: Size = 600
    """Scenes for training and for testing the linear probes."""
    save_every: Count = 500
    """Steps between rolling checkpoints; 0 = none."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` = bf16 autocast on a GPU that computes it natively, fp32 on a CPU."""


class BackbonesConfig(Section):
    """Where the vision tower and the language model are (the mini ones are shipped with their records)."""

    tower: Path = Path("data/backbones/tower")
    """Folder of the CLIP vision tower."""
    llm: Path = Path("data/backbones/llm")
    """Folder of the LLaMA model with its tokenizer."""
    llm_layers: Size | None = None
    """Start from the language model's first so many decoder layers only, for models of several sizes; null = all."""
    pretrain_tower: TowerPretrainConfig = TowerPretrainConfig()
    """How the shipped tower was made."""


class FeaturesConfig(Section):
    """The frozen tower's hidden states, computed once per image set and memory-mapped."""

    levels: list[int] = [-2, 21, 18, 15, 12, 9, 6, 3]
    """Levels of a 24-block CLIP (scaled to the tower's depth) that some method reads; -2 is LLaVA's."""
    batch_size: Size = 8
    """Images per forward pass."""
