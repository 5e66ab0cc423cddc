"""From images and videos, or the tower's states of them, to the tokens that enter the language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from visiontokens.compress.base import Compressor, Geometry, VisionIn
from visiontokens.models.query import Prompt, image_queries, repeat_images

Levels = dict[int, Tensor]
"""States of the tower by hidden-state index."""


class EncodesImages:
    """The vision side of `LlavaWithCompressor`: tower, projector and what the compressor does before the LLM."""

    model: Any
    compressor: Compressor[Any]

    @property
    def geometry(self) -> Geometry:
        """Widths, depths and patch grid."""
        return self.compressor.geometry

    def encode_images(
        self,
        pixel_values: Tensor | None = None,
        vision_levels: Levels | None = None,
        vision_frames: Sequence[int] | None = None,
        prompt: Prompt | None = None,
    ) -> tuple[list[Tensor], list[int]]:
        """Return the LLM tokens `[M_i, D]` of every image (or video), and its uncompressed token counts.

        Args:
            pixel_values: images `[F, 3, H, W]`, or videos `[V, T, 3, H, W]` whose frames' tokens are joined.
            vision_levels: hidden states instead, `[F, N, C]` or `[V, T, N, C]` by hidden-state index; those that the
                method wants with CLS have it in front, `[F, 1 + N, C]`.
            vision_frames: frames of each image or video, where F pictures hold both; they sum to F.
            prompt: the text around the images, for methods that read the question, and which image stands where.

        Raises:
            ValueError: both or neither given, a level is missing or misshaped, frames that do not sum to F.
        """
        if (pixel_values is None) == (vision_levels is None):
            raise ValueError("pass exactly one of pixel_values and vision_levels")
        compressor, tower, projector = self.compressor, self.model.vision_tower, self.model.multi_modal_projector
        if pixel_values is not None:
            frames = _frames(pixel_values, 4)
            flat = pixel_values.flatten(0, 1) if pixel_values.ndim == 5 else pixel_values
            states = compressor.run_tower(tower, flat.to(tower.dtype))
        else:
            states, frames = self._given_levels(vision_levels or {})
        if vision_frames is not None:
            if sum(vision_frames) != sum(frames):
                raise ValueError(f"vision_frames: found {list(vision_frames)}, expected a sum of {sum(frames)}")
            frames = [int(count) for count in vision_frames]
        if prompt is not None and prompt.image_index is not None:
            states, frames = repeat_images(states, frames, prompt.image_index)
        dtype, geometry = projector.linear_1.weight.dtype, self.geometry
        states = {level: value.to(dtype) for level, value in states.items()}
        first = {level: states[level][:, 0] for level in compressor.class_levels}
        patches = {level: value[:, 1:] if level in first else value for level, value in states.items()}
        vision = VisionIn(patches, geometry.default_level, geometry.grid, frames, first, tower)
        if compressor.text_query:
            vision.query = image_queries(self, prompt, frames).to(dtype)
        return compressor.compress(vision, projector), [geometry.n_vision * count for count in frames]

    def _given_levels(self, levels: Levels) -> tuple[Levels, list[int]]:
        """Return the states `[F, ...]` that the method reads, and the frames of each image or video."""
        compressor = self.compressor
        missing = [level for level in compressor.levels if level not in levels]
        if missing:
            raise ValueError(
                f"method {compressor.name!r} reads tower levels {list(compressor.levels)}; "
                f"missing {missing}, given {sorted(levels)}"
            )
        states = {level: levels[level] for level in compressor.levels}
        frames = _frames(next(iter(states.values())), 3)
        flat = {level: value.flatten(0, 1) if value.ndim == 4 else value for level, value in states.items()}
        for level, want in compressor.state_shapes(sum(frames)).items():
            if tuple(flat[level].shape) != want:
                note = " (class token in front)" if level in compressor.class_levels else ""
                raise ValueError(f"vision level {level}: expected shape {want}{note}, found {tuple(flat[level].shape)}")
        return flat, frames

    def _images(
        self,
        pixel_values: Tensor | None,
        vision_levels: Levels | None,
        prompt: Prompt,
        encoded: dict[str, Any] | None = None,
        vision_frames: Sequence[int] | None = None,
    ) -> tuple[list[Tensor], list[int]]:
        """Return what `encode_images` does, of nothing or of tokens computed before, too."""
        if encoded is not None and encoded.get("image") is not None:
            tokens = list(encoded["image"].pooler_output)
            return tokens, [self.geometry.n_vision] * len(tokens)
        if pixel_values is None and vision_levels is None:
            return [], []
        return self.encode_images(pixel_values, vision_levels, vision_frames, prompt)


def _frames(value: Tensor, plain: int) -> list[int]:
    """Return frames per image run: one each, or T for videos, which have one more dimension."""
    if value.ndim not in (plain, plain + 1):
        raise ValueError(f"expected {plain} dimensions (images) or {plain + 1} (videos); found {tuple(value.shape)}")
    return [1] * len(value) if value.ndim == plain else [value.shape[1]] * len(value)
