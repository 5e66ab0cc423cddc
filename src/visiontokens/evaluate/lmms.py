"""A model of ours in lmms-eval, for cross-checks of our own prompts and scores against another harness.

lmms-eval finds it by the entry point `lmms_eval.models` and imports this file; nothing else does, and lmms-eval is no
dependency. Its tasks bring the words of a question without a conversation template, which is ours to add, and PIL
images. Answers are greedy and one question at a time, whatever batch size is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from visiontokens.data.conversation import IMAGE_TOKEN, front_image
from visiontokens.data.encoders import FastEncoder
from visiontokens.data.images import Preprocessor, preprocess
from visiontokens.evaluate.greedy import Greedy, Levels, encode_question
from visiontokens.models.library import load, resolve
from visiontokens.models.processors import image_settings, load_tokenizer

LONGEST = 1024
"""New tokens where a task does not say, as in lmms-eval's own LLaVA."""


def manifest() -> ModelManifest:
    """Return what lmms-eval needs to know to find the model: `--model visiontokens`."""
    return ModelManifest(model_id="visiontokens", simple_class_path=f"{__name__}.VisionTokens")


class VisionTokens(lmms):
    """`lmms-eval eval --model visiontokens --model_args pretrained=FOLDER[,method=NAME][,budget=TOKENS]`.

    Args:
        pretrained: folder of a checkpoint, or its id on the hub.
        method: at test time, if not the one the checkpoint was saved with: a name, or a YAML file.
        budget: mean vision tokens over all decoder layers.
        device: by default the GPU, if there is one.
        batch_size: read and not used.

    Raises:
        FileNotFoundError: a part of the model is not there.
        ValueError: the weights do not fit the method.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        method: str | None = None,
        budget: float | None = None,
        device: str | None = None,
        batch_size: int | str = 1,
    ) -> None:
        super().__init__()
        folder = resolve(pretrained)
        images = image_settings([folder])
        if images is None:
            raise FileNotFoundError(f"{folder}: found no image settings, expected them beside the weights")
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.processor = Preprocessor.from_config(images)
        self.tokenizer = load_tokenizer([folder])
        self.encoder = FastEncoder(self.tokenizer)
        model: Any = load(folder, method, budget, dtype=torch.float32 if place == "cpu" else "auto")
        self.model = model.to(place).eval()

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Return the greedy answer to every request, cut at its stop strings.

        Raises:
            ValueError: a request asks for sampling or beams, or has several images.
        """
        answers = []
        for request in requests:
            context, options, doc_to_visual, doc_id, task, split = request.args
            images = doc_to_visual(self.task_dict[task][split][doc_id]) or []
            answers.append(self._answer(str(context), options, images))
            self.cache_hook.add_partial("generate_until", (context, options), answers[-1])
        return answers

    def _answer(self, context: str, options: Mapping[str, Any], images: Sequence[Any]) -> str:
        if options.get("do_sample") or options.get("temperature") or options.get("num_beams", 1) != 1:
            raise ValueError(f"generation_kwargs: found {dict(options)}, expected greedy decoding")
        if len(images) > 1:
            raise ValueError(f"found {len(images)} images in one question, expected at most one")
        question = front_image(context).removeprefix(f"{IMAGE_TOKEN}\n")
        prompt = encode_question(question, self.encoder, self.model.config.image_token_id, image=bool(images))
        greedy = Greedy(self.model, self.encoder, int(options.get("max_new_tokens", LONGEST)))
        (ids,) = greedy.answer(self._levels(images[0]) if images else None, [[prompt]])[0]
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        until = options.get("until", [])
        for stop in [until] if isinstance(until, str) else until:
            text = text.split(stop, 1)[0] if stop else text
        return text.strip()

    @torch.inference_mode()
    def _levels(self, image: Any) -> Levels:
        """Return what the method reads of the tower for one PIL image."""
        settings = self.processor
        pixels = preprocess(
            [image.convert("RGB")], size=settings.size, mean=settings.mean, std=settings.std, pad=settings.pad
        )
        tower = self.model.model.vision_tower
        levels: Levels = self.model.compressor.run_tower(
            tower, torch.from_numpy(pixels).to(self.model.device, tower.dtype)
        )
        return levels

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Not offered: LLaVA-1.5's benchmarks ask for words.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("visiontokens answers in words (generate_until); no task of LLaVA-1.5 asks for more")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Not offered (errors: see `loglikelihood`)."""
        raise NotImplementedError("visiontokens answers one question at a time (generate_until)")
