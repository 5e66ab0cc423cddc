"""VoCo-LLaMA's mask, logits and greedy decoding against numbers from the official code.

The official prompt writes a line break and the compression tokens behind the image; with `separator` they belong to
the image's run, so our prompt has one placeholder for all of it. The recorded losses are over the whole vocabulary of
32002 words, of which the fixtures hold the first rows only, so labels are compared instead.
"""

import json
import math
import re

import pytest
import torch
from goldens import golden, model_of
from transformers import LlamaConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

from visiontokens.compress import MethodSpec, Seq
from visiontokens.compress.base import VisionIn
from visiontokens.compress.voco import Roles, two_phase
from visiontokens.models.convert import load_official

G = golden("voco")
C = G.manifest["config"]
N, VOCO, COUNT = C["visual_tokens"], C["compression_token_id"], C["compression_tokens_per_sample"]
ROWS = {name.split(".weight.")[0]: w for name, w in G.weights.items() if ".weight.rows_" in name}
WORDS = len(ROWS["lm_head"])
SIDE = math.isqrt(N)
CASES = [match[1] for match in G.names(r"(.+)\.visible")]


TEXT = LlamaConfig(
    vocab_size=WORDS, hidden_size=C["hidden_size"], intermediate_size=C["intermediate_size"],
    num_hidden_layers=C["num_hidden_layers"], num_attention_heads=C["num_attention_heads"],
    rms_norm_eps=C["rms_norm_eps"], rope_theta=C["rope_theta"], pad_token_id=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    method = MethodSpec(name="voco", params={"tokens": COUNT, "separator": True})
    width = G.weights["model.mm_projector.0.weight"].shape[1]
    model = model_of(method, TEXT, width=width, side=SIDE, image=WORDS)
    whole = {name: w for name, w in G.weights.items() if ".weight.row" not in name}
    whole |= {f"{name}.weight": rows for name, rows in ROWS.items()}
    load_official(model, whole, only=r"^(model\.(language_model|multi_modal_projector)|lm_head)\.")
    with torch.no_grad():
        model.compressor.token.copy_(G.weights[f"model.embed_tokens.weight.row_{VOCO}"])
        model.compressor.separator.copy_(ROWS["model.embed_tokens"][_between(G[f"{CASES[0]}.input_ids"][0])])
    return model


def _between(ids):
    """The token between an image and its compression tokens."""
    place = int((ids == C["image_id"]).nonzero()[0, 0])
    assert ids[place + 2] == VOCO
    return ids[place + 1]


def _ours(ids, *more):
    """Cut the separator and the compression tokens behind every image out of rows `[B, S]`; the placeholder is ours."""
    keep = torch.ones_like(ids, dtype=torch.bool)
    for row, places in zip(keep, ids, strict=True):
        at = int((places == C["image_id"]).nonzero()[0, 0])
        row[at + 1 : at + 2 + COUNT] = False
    rows = [values[keep].unflatten(0, (len(ids), -1)) for values in (ids, *more)]
    return [rows[0].masked_fill(rows[0] == C["image_id"], WORDS), *rows[1:]]


def _tokens(model, count):
    level = model.geometry.default_level
    vision = VisionIn({level: G["image_features"][:count]}, level, model.geometry.grid, [1] * count)
    return list(model.compressor.tokens(vision, torch.nn.Identity()))


def _encoded(model, count):
    return {"image": BaseModelOutputWithPooling(pooler_output=_tokens(model, count))}


def _read(model, ids, mask):
    """The sequence as the first layer sees it, with its mask, and where it came from."""
    images = int((ids == WORDS).sum())
    full, layout = model._splice(ids, mask, (_tokens(model, images), [N] * images))
    return model.compressor.begin(full, model.model.language_model), layout


@pytest.mark.parametrize("case", CASES)
def test_case(model, case):
    ids, mask = _ours(G[f"{case}.input_ids"], G[f"{case}.attention_mask"])
    real = G[f"{case}.expanded_attention_mask"].bool()
    with torch.no_grad():
        seq, layout = _read(model, ids, mask)
        logits = model(input_ids=ids, attention_mask=mask, mm_encoder_outputs=_encoded(model, len(ids))).logits
    assert torch.equal(seq.valid, real)
    G.close(seq.h[real], G[f"{case}.inputs_embeds"][real])
    assert torch.equal(seq.mask[:, 0][real], G[f"{case}.visible"].bool()[real])  # the official padding sees everything
    G.close(logits[real], G[f"{case}.logits_first{WORDS}"][real])
    if f"{case}.labels" in G.tensors:
        labels = layout.labels(_ours(G[f"{case}.input_ids"], G[f"{case}.labels"])[1])
        assert torch.equal(labels[real], G[f"{case}.expanded_labels"][real])


@pytest.mark.parametrize("match", G.names(r"(m_.+)\.is_compression_token"), ids=lambda m: m[1])
def test_block_rule(match):
    voco = G[match[0]].bool()[None]
    place = torch.arange(voco.shape[1])[None]
    seq = Seq(torch.zeros(*voco.shape, 1), place, place, torch.where(voco, 0, -1), torch.zeros_like(place))
    last = voco & (place == torch.where(voco, place, -1).amax())
    got = two_phase(seq, Roles(seq, voco, last, torch.zeros_like(place)))
    assert torch.equal(got[0, 0], G[f"{match[1]}.rule_without_causal"].bool().tril())


def test_greedy_decoding_from_the_compressed_cache(model):
    """The fixture repeats full forwards, because the official cached decoding fails; ours keeps VoCo and text only."""
    (prompt,) = _ours(G["gen.prompt_ids"])
    ids = G["gen.prompt_ids"][0]
    behind = len(ids) - 1 - int((ids == VOCO).nonzero()[-1])
    with torch.no_grad():
        out = model(input_ids=prompt, mm_encoder_outputs=_encoded(model, 1), use_cache=True)
        cache, got = out.past_key_values, []
        assert cache.lengths() == [COUNT + behind] * C["num_hidden_layers"]
        for want in G[f"gen.step_logits_first{WORDS}"]:
            G.close(out.logits[0, -1], want)
            got.append(int(out.logits[0, -1].argmax()))
            out = model(input_ids=torch.tensor([[got[-1]]]), past_key_values=cache)
    assert got == G["gen.new_ids"].tolist()


def test_a_text_row_beside_an_image_row_keeps_its_own_mask(model):
    """The official code gives the image's mask to row 0 and none to the image."""
    recorded = G.manifest["behaviours"]["batch [text-only row, image row]"]
    text, image = (torch.tensor(json.loads(row)) for row in re.findall(r"\[[\d, ]+\]", recorded))
    ids, mask = _ours(G["one.input_ids"], G["one.attention_mask"])
    length = int((text != len(text)).sum())  # the official padding sees everything
    width = max(length, ids.shape[1])
    rows, real = torch.ones(2, width, dtype=torch.long), torch.zeros(2, width, dtype=torch.long)
    rows[1, width - ids.shape[1] :], real[1, width - ids.shape[1] :] = ids[0], mask[0]
    real[0, width - length :] = 1
    seq, _ = _read(model, rows, real)
    seen = seq.mask[:, 0].sum(-1)
    assert torch.equal(seen[0, -length:], torch.arange(1, length + 1))
    assert torch.equal(seen[1], G["one.visible"][0].long().sum(-1))
    assert not torch.equal(seen[0, -length:], text[-length:])
    assert not torch.equal(seen[1], image)


def test_right_padding_is_left_padding(model):
    """The official mask is shifted by the padding when that stands on the right."""
    found = re.search(r"tokens at [\d,]*?(\d+); the mask treats \[(\d+)\]", G.manifest["behaviours"][
        "right padding (shorter row)"
    ])  # fmt: skip
    last, official = map(int, found.groups())
    ids, mask = _ours(G["left_padded.input_ids"], G["left_padded.attention_mask"])
    order = torch.argsort(1 - mask, dim=1, stable=True)
    seq, _ = _read(model, ids.gather(1, order), mask.gather(1, order))
    row = int((mask.sum(1) < mask.shape[1]).nonzero()[0, 0])
    first = int((~seq.mask[row, 0, :, 0] & seq.valid[row]).nonzero()[0, 0])
    assert first == last + 1 != official
    with torch.no_grad():
        left = model(input_ids=ids, attention_mask=mask, mm_encoder_outputs=_encoded(model, len(ids))).logits
        right = model(
            input_ids=ids.gather(1, order), attention_mask=mask.gather(1, order),
            mm_encoder_outputs=_encoded(model, len(ids)),
        ).logits  # fmt: skip
    length = int(seq.valid[row].sum())
    G.close(right[row, :length], left[row, -length:])
