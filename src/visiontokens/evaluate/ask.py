"""One question about one image file: the answer, the tokens that were spent on it, the time to the first token."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaConfig

from visiontokens.data.encoders import FastEncoder
from visiontokens.data.images import Preprocessor
from visiontokens.evaluate.greedy import Greedy, Prompt, encode_question
from visiontokens.models.build import PROCESSOR_FILE, load_model
from visiontokens.models.library import choose_method
from visiontokens.models.processors import image_settings, load_tokenizer


@dataclass(frozen=True)
class Answer:
    """What `ask` returns; `tokens_per_layer` counts the image's tokens alive in each decoder layer."""

    text: str
    method: str
    tokens_per_layer: list[float]
    full_tokens: int
    seconds_to_first_token: float

    @property
    def mean_tokens(self) -> float:
        """Vision tokens, averaged over the decoder's layers."""
        return sum(self.tokens_per_layer) / len(self.tokens_per_layer)


def ask(
    model_dir: Path,
    image: Path,
    question: str,
    method: Path | str | None = None,
    max_new_tokens: int = 64,
    *,
    budget: float | None = None,
) -> Answer:
    """Answer `question` about `image` with the model in a self-contained folder.

    Args:
        model_dir: weights, tokenizer and image settings, as training leaves them or as LLaVA-1.5 is published.
        image: an image file of any size.
        question: in words; the prompt template is added here.
        method: method, by name or file, that replaces the model's own compressor at test time.
        max_new_tokens: longest answer.
        budget: mean vision tokens over all decoder layers, translated to the method's parameters.

    Raises:
        FileNotFoundError: a part of the model, or the image, is not there.
        ValueError: the image cannot be read, or the weights do not fit the method.
    """
    model_dir = Path(model_dir)
    images = image_settings([model_dir])
    if images is None:
        raise FileNotFoundError(f"{model_dir}: {PROCESSOR_FILE} not found, expected it beside the weights")
    tokenizer = load_tokenizer([model_dir])
    pixels = Preprocessor.from_config(images)([image])
    spec = choose_method(LlavaConfig.from_pretrained(model_dir), method, budget, {})
    gpu = torch.cuda.is_available()
    model: Any = load_model(model_dir, spec, "auto" if gpu else torch.float32)
    model.to("cuda" if gpu else "cpu")
    encoder = FastEncoder(tokenizer)
    prompt = encode_question(question, encoder, model.config.image_token_id, image=True)
    inputs = torch.from_numpy(pixels).to(model.device, model.dtype)
    ids, _ = _answer(Greedy(model, encoder, max_new_tokens), inputs, prompt)
    _, seconds = _answer(Greedy(model, encoder, 1), inputs, prompt)
    patches = model.geometry.n_vision
    return Answer(
        text=str(tokenizer.decode(ids, skip_special_tokens=True)).strip(),
        method=model.method.name,
        tokens_per_layer=model.compressor.tokens_per_layer(patches, model.config.text_config.num_hidden_layers),
        full_tokens=patches,
        seconds_to_first_token=seconds,
    )


@torch.inference_mode()
def _answer(greedy: Greedy, pixels: torch.Tensor, prompt: Prompt) -> tuple[list[int], float]:
    """Return the new ids and the seconds from pixels to the last of them."""
    start = time.perf_counter()
    model = greedy.model
    levels = model.compressor.run_tower(model.model.vision_tower, pixels)
    ids = greedy.answer(levels, [[prompt]])[0][0]
    return ids, time.perf_counter() - start
