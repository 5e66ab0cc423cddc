"""LLaVA-1.5 with a compressor: the stock transformers model, subclassed at its hook points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlavaConfig, LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llava.modeling_llava import LlavaCausalLMOutputWithPast

from visiontokens.compress.base import Compressor, MethodSpec, Seq
from visiontokens.compress.sequence import positions
from visiontokens.models import splice
from visiontokens.models.hooked import HookedLlavaModel, geometry_of
from visiontokens.models.llama import Extension, Prefill
from visiontokens.models.load import Load
from visiontokens.models.loss import Rows, keep_rows, labelled_rows, next_token_loss, scatter_back, share
from visiontokens.models.pictures import EncodesImages, Levels
from visiontokens.models.query import Prompt
from visiontokens.models.state import State, VisionCache


class LlavaWithCompressor(EncodesImages, LlavaForConditionalGeneration):
    """LLaVA plus one compressor, chosen by `config.compressor = {"name": ..., "params": {...}}`.

    `forward` takes what the stock model takes and, besides, one placeholder per image, precomputed tower states and
    isolated turns. Without compression, and with inputs the stock model accepts, it *is* the stock forward.
    """

    def __init__(self, config: LlavaConfig) -> None:
        super(LlavaForConditionalGeneration, self).__init__(config)
        self.processor: Any = None  # the stock processor, where `visiontokens.load` finds one
        self.method = MethodSpec.from_config(getattr(config, "compressor", None))
        config.compressor = self.method.to_config()
        geometry = geometry_of(config)
        compressor = self.method.build(geometry)
        stock = (geometry.vision_width, geometry.llm_width, geometry.llm_width)
        sizes = compressor.projector_sizes()
        self.model = HookedLlavaModel(config, None if sizes == stock else sizes)
        self.compressor: Compressor[Any] = compressor
        text: Any = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.load = Load()
        self.post_init()

    @property
    def _text(self) -> Any:
        """Configuration of the language model."""
        return self.config.text_config

    @property
    def prefix_safe(self) -> bool:
        """Whether a state prefilled with system prompt and image serves any text after it."""
        return self.compressor.prefix_safe

    def forward(  # type: ignore[override]  # noqa: PLR0917 - the stock signature
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        vision_levels: Levels | None = None,
        segment_ids: Tensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        loss_only: bool | None = None,
        use_cache: bool | None = None,
        loss_weights: Tensor | None = None,
        document_ids: Tensor | None = None,
        vision_frames: Sequence[int] | None = None,
        image_index: Tensor | None = None,
        **kwargs: Any,
    ) -> LlavaCausalLMOutputWithPast:
        """Run the model.

        Args:
            input_ids: `[B, S]`; each image is one placeholder, or a run of as many as it has tokens or patches.
            pixel_values: `[F, 3, H, W]` images in reading order, or `[V, T, 3, H, W]` videos.
            attention_mask: `[B, S]`, 0 = padding on either side.
            position_ids: `[B, S2]` for the spliced sequence; default counts real tokens.
            past_key_values: a cache to fill or, when it holds tokens, to continue.
            inputs_embeds: stock path only.
            labels: `[B, S]` like `input_ids`, -100 = ignore.
            logits_to_keep: as in the stock model, over the spliced sequence.
            vision_levels: tower states by hidden-state index instead of pixels.
            segment_ids: `[B, S]` isolated turns: 0 shared prefix, t >= 1 turn t, -1 padding.
            mm_encoder_outputs: image tokens already computed (what `generate` passes).
            loss_only: compute the output layer on labelled rows only and return no logits; by default so when
                training with labels.
            use_cache: return a cache.
            loss_weights: `[B, S]` weight of every label in the loss (a weighted mean); `None` = all alike.
            document_ids: `[B, S]` number of the sample that a token belongs to, where rows hold several (-1 padding);
                samples do not see each other, and each has positions of its own.
            vision_frames: frames of each image or video, where a batch holds both; see `encode_images`.
            image_index: which of the given images stands at each placeholder, where several rows show the same one.
            **kwargs: passed to the layers; `num_items_in_batch` divides the summed (weighted) loss.

        Returns:
            The stock output; logits `[B, S2, V]` are over the spliced sequence, zero where a token was dropped inside
            the language model.

        Raises:
            ValueError: arguments that do not fit together, placeholders that do not match the images.
        """
        loss_only = (self.training and labels is not None) if loss_only is None else loss_only
        own_loss = (labels is not None and (loss_only or loss_weights is not None)) or document_ids is not None
        own_loss = own_loss or vision_frames is not None or image_index is not None
        if not own_loss and self._is_stock(input_ids, pixel_values, vision_levels, segment_ids, past_key_values):
            return super().forward(
                input_ids=input_ids, pixel_values=pixel_values, attention_mask=attention_mask,
                position_ids=position_ids, past_key_values=past_key_values, inputs_embeds=inputs_embeds, labels=labels,
                logits_to_keep=logits_to_keep, mm_encoder_outputs=mm_encoder_outputs, use_cache=use_cache, **kwargs,
            )  # fmt: skip
        if input_ids is None:
            raise ValueError("compression needs input_ids; inputs_embeds does not say where the images are")
        if past_key_values is not None and past_key_values.get_seq_length() > 0:
            return self._continue(input_ids, attention_mask, position_ids, past_key_values, logits_to_keep, **kwargs)
        prompt = Prompt(input_ids, attention_mask, labels, segment_ids, document_ids, image_index)
        images = self._images(pixel_values, vision_levels, prompt, mm_encoder_outputs, vision_frames)
        full, layout = self._splice(
            input_ids, attention_mask, images, position_ids=position_ids, segment_ids=segment_ids,
            document_ids=document_ids,
        )  # fmt: skip
        use_cache = self._text.use_cache and not self.training if use_cache is None else use_cache
        cache = (past_key_values if past_key_values is not None else VisionCache()) if use_cache else None
        items = kwargs.pop("num_items_in_batch", None)
        if self.training:
            self.load.enter(full, sum(images[1]) // self.geometry.n_vision)
        work = Prefill(full, self.compressor, cache, self.load if self.training else None)
        out = self.model.language_model(work=work, **kwargs)
        hidden, loss, logits = out.last_hidden_state, None, None
        if labels is not None:
            weights = None if loss_weights is None else layout.weights(loss_weights)
            loss = self._loss(hidden, labelled_rows(work.seq, full, layout.labels(labels), weights), items)
        if not loss_only:
            logits = self.lm_head(keep_rows(scatter_back(hidden, work.seq, full.pos.shape[1]), logits_to_keep))
        return LlavaCausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=cache, hidden_states=out.hidden_states,
            attentions=out.attentions, image_hidden_states=torch.cat(images[0]) if images[0] else None,
        )  # fmt: skip

    def _loss(self, hidden: Tensor, rows: Rows, items: Tensor | int | None) -> Tensor:
        """Return the loss of labelled rows of the states `[B, S, D]`, with the compressor's own term if it has one."""
        if self.training:
            self.load.rows += len(rows[2])
        loss = next_token_loss(hidden, rows, self.lm_head, items)
        extra = self.compressor.extra_loss()
        return loss if extra is None else loss + extra * share(rows, items)

    def _is_stock(
        self,
        input_ids: Tensor | None,
        pixel_values: Tensor | None,
        vision_levels: Levels | None,
        segment_ids: Tensor | None = None,
        cache: Any = None,
    ) -> bool:
        """Whether the stock forward can do this call."""
        if self.method.name != "none" or vision_levels is not None or segment_ids is not None:
            return False
        if isinstance(cache, VisionCache):
            return False
        if pixel_values is None:
            return True
        expanded = input_ids is None or int((input_ids == self.config.image_token_id).sum()) == (
            len(pixel_values) * self.geometry.n_vision
        )
        return pixel_values.ndim == 4 and expanded

    def _splice(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        images: tuple[Sequence[Tensor], Sequence[int]],
        *,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        document_ids: Tensor | None = None,
    ) -> tuple[Seq, splice.Layout]:
        """Return what enters layer 0, and where it came from."""
        image_token = self.config.image_token_id
        tokens, patches = images
        layout = splice.plan(input_ids, attention_mask, image_token, [len(t) for t in tokens], patches)
        text = self.get_input_embeddings()(input_ids.masked_fill(input_ids == image_token, 0))
        segments = None if segment_ids is None else layout.segments(segment_ids)
        documents = None if document_ids is None else layout.documents(document_ids)
        if position_ids is None:
            position_ids = positions(layout.valid, segments, documents)
        elif position_ids.shape[1] != layout.slot.shape[1]:
            raise ValueError(
                f"position_ids cover {position_ids.shape[1]} tokens, the spliced sequence has {layout.slot.shape[1]}"
            )
        src = torch.arange(layout.slot.shape[1], device=input_ids.device).expand_as(layout.slot)
        h = layout.embed(text, tokens)
        pos = position_ids.expand_as(src)
        return Seq(h, pos, src, layout.image, layout.rank, layout.ok, segments, doc=documents), layout

    def _continue(
        self, input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None, cache: VisionCache,
        logits_to_keep: int | Tensor = 0, **kwargs: Any,
    ) -> LlavaCausalLMOutputWithPast:  # fmt: skip
        """Append text to a cache. `attention_mask` may cover the new tokens only or everything before them too."""
        if not isinstance(cache, VisionCache):
            raise ValueError(f"continuing a compressed prompt needs a VisionCache, found {type(cache).__name__}")
        size = input_ids.shape[1]
        ok = None if attention_mask is None else attention_mask[:, -size:].bool()
        ok = None if ok is None or bool(ok.all()) else ok
        if position_ids is None:
            real = torch.ones_like(input_ids, dtype=torch.bool) if ok is None else ok
            start = cache.next_pos[:, None] if cache.next_pos is not None else 0
            position_ids = start + (real.long().cumsum(1) - 1).clamp_min(0)
        h = self.get_input_embeddings()(input_ids)
        work = Extension(h, ok, position_ids[:, -size:].expand_as(input_ids), cache)
        out = self.model.language_model(work=work, **kwargs)
        return LlavaCausalLMOutputWithPast(
            logits=self.lm_head(keep_rows(out.last_hidden_state, logits_to_keep)), past_key_values=cache,
            hidden_states=out.hidden_states, attentions=out.attentions,
        )  # fmt: skip

    @torch.no_grad()
    def prefill(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        pixel_values: Tensor | None = None,
        vision_levels: Levels | None = None,
    ) -> State:
        """Read a prompt, or a prefix shared by many prompts; arguments as in `forward`."""
        images = self._images(pixel_values, vision_levels, Prompt(input_ids, attention_mask))
        seq, _ = self._splice(input_ids, attention_mask, images)
        work = Prefill(seq, self.compressor, VisionCache())
        hidden = self.model.language_model(work=work).last_hidden_state
        last = work.seq.last()
        assert work.cache is not None
        spent = tuple(len(tokens) for tokens in images[0])
        return State(work.cache, self.lm_head(hidden[torch.arange(len(last)), last]), spent)

    @torch.no_grad()
    def extend(
        self, state: State, input_ids: Tensor, attention_mask: Tensor | None = None, *, last_only: bool = False
    ) -> tuple[Tensor, State]:
        """Append text `[B, T]`, padded on either side, and return logits `[B, T, V]` and the new state.

        `state` stays as it is, so one prefix can be continued many times. `new_state.logits` `[B, V]` follow each
        row's last real token; with `last_only` the output layer runs on that row alone and `[B, 1, V]` is returned.
        """
        cache = state.cache.fork()
        steps = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        last = steps.amax(1) if attention_mask is None else torch.where(attention_mask.bool(), steps, -1).amax(1)
        at = last.clamp_min(0)[:, None]
        logits = self._continue(input_ids, attention_mask, None, cache, at if last_only else 0).logits
        assert logits is not None
        after = logits[:, 0] if last_only else keep_rows(logits, at)[:, 0]
        return logits, State(cache, torch.where((last >= 0)[:, None], after, state.logits))

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """Generate as the stock model does; images may be one placeholder each, `vision_levels` replaces pixels.

        Batches of unequal length should be padded on the left. The prompt comes back as it was given, followed by
        the new tokens.
        """
        ids = kwargs.pop("input_ids", inputs)
        pixels, levels = kwargs.pop("pixel_values", None), kwargs.pop("vision_levels", None)
        cache = kwargs.get("past_key_values")
        if ids is None or cache is not None or self._is_stock(ids, pixels, levels):
            stock = {"pixel_values": pixels} if pixels is not None else {}
            return self._stock_generate(ids, **stock, **kwargs)
        mask = kwargs.pop("attention_mask", None)
        images, patches = self._images(pixels, levels, Prompt(ids, mask))
        layout = splice.plan(ids, mask, self.config.image_token_id, [len(tokens) for tokens in images], patches)
        full = ids.gather(1, layout.slot).masked_fill(~layout.valid, self._pad_id())
        if images:
            tokens: Any = images
            kwargs["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=tokens)}
        out = self._stock_generate(full, attention_mask=layout.valid.long(), past_key_values=VisionCache(), **kwargs)
        grown = out if isinstance(out, Tensor) else out.sequences
        prompt = ids.repeat_interleave(len(grown) // len(ids), 0)
        sequences = torch.cat([prompt, grown[:, full.shape[1] :]], 1)
        if isinstance(out, Tensor):
            return sequences
        out.sequences = sequences
        return out

    def _stock_generate(self, ids: Tensor | None, **kwargs: Any) -> Any:
        stock: Any = super()  # transformers types `self` of its generation mixin as a protocol
        return stock.generate(ids, **kwargs)

    def _pad_id(self) -> int:
        pad = self.generation_config.pad_token_id
        pad = self._text.pad_token_id if pad is None else pad
        return 0 if pad is None else int(pad)
