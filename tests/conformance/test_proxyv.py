"""ProxyV's proxies, light MLP, masks, layers, logits and decoding against numbers from the official code.

The official sequence is packed (images, separators, text) and its order lives in positions; ours keeps the reading
order. `_packed` says where the tokens of the packed sequence are in ours.
"""

import json
import math
from dataclasses import dataclass

import pytest
import torch
from goldens import golden, model_of
from transformers import LlamaConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

from visiontokens.compress import MethodSpec
from visiontokens.compress.base import VisionIn
from visiontokens.compress.places import visible
from visiontokens.compress.proxyv import ProxyInitializer, VisionMLP, repeated, resized
from visiontokens.models.convert import load_official

G = golden("proxyv")
C = G.manifest["config"]
N, LAYERS, START, FACTOR = C["crop_tokens"], C["layers"], C["start_layer"], C["reduce_factor"]
SIDE = math.isqrt(N)
GRID = (SIDE, SIDE)
IMAGE = len(G.weights["pool.model.embed_tokens.weight"])
KINDS = ["pool", "learn"]
NEWER = r"^(?!model\.vision_tower\.)"
OFFICIAL_IMAGE = int(G["batch.input_ids"].min())


TEXT = LlamaConfig(
    vocab_size=IMAGE, hidden_size=C["hidden"], intermediate_size=C["intermediate"], num_hidden_layers=LAYERS,
    num_attention_heads=C["heads"], num_key_value_heads=C["kv_heads"], rms_norm_eps=C["rms_norm_eps"],
    rope_theta=C["rope_theta"], pad_token_id=0,
)  # fmt: skip


def _model(kind, start=START, **params):
    method = MethodSpec(
        name="proxyv", params={"start": f"{start}/{LAYERS}", "factor": FACTOR, "learned": kind == "learn", **params}
    )
    given = {n.removeprefix(f"{kind}."): w for n, w in G.weights.items() if n.startswith(f"{kind}.")}
    if start >= LAYERS:
        given = {name: w for name, w in given.items() if "vision_mlp" not in name}
    width = given["model.mm_projector.0.weight"].shape[1]
    model = model_of(method, TEXT, width=width, side=SIDE, image=IMAGE)
    load_official(model, given, only=NEWER)
    return model


@dataclass
class Run:
    """One forward: its output, and what each layer got and gave."""

    out: object
    before: list
    after: list
    proxies: dict


def _run(model, ids, images, mask=None, labels=None):
    """Run a prompt; `images` lists the crops of every image."""
    level = model.geometry.default_level
    features = G["image_features"][[crop for crops in images for crop in crops]]
    vision = VisionIn({level: features}, level, GRID, [len(crops) for crops in images])
    tokens = model.compressor.compress(vision, torch.nn.Identity())
    compressor, run = model.compressor, Run(None, [], [], {})
    inner = compressor.run_layer

    def spy(index, seq, lm, call):
        out = inner(index, seq, lm, call)
        run.before.append(seq)
        run.after.append(out)
        if compressor._proxies is not None:
            run.proxies[index] = compressor._proxies.wide
        return out

    compressor.run_layer = spy
    try:
        with torch.no_grad():
            run.out = model(
                input_ids=ids.masked_fill(ids == OFFICIAL_IMAGE, IMAGE), attention_mask=mask, labels=labels,
                mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=tokens)}, use_cache=True,
            )  # fmt: skip
    finally:
        del compressor.run_layer
    return run


def _packed(seq, separator=True):
    """Places of the official packed sequence in ours, `[B, S]`: full tokens, separators, text with its padding."""
    place = seq.rank % (N + separator)
    group = torch.where(seq.vis & (place < N), 0, torch.where(seq.vis, 1, 2))
    return torch.argsort(group, dim=1, stable=True)


def _take(values, index):
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


BATCH = {"ids": G["batch.input_ids"], "images": [[0], [1]], "mask": G["batch.mask_in"], "labels": G["batch.labels_in"]}
REAL = G["batch.attention_mask"].bool()


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def run(kind):
    return _run(_model(kind), **BATCH)


def test_packing(run):
    seq = run.before[0]
    order = _packed(seq)
    assert torch.equal(seq.valid.gather(1, order), REAL)
    assert torch.equal(seq.pos.gather(1, order)[REAL], G["batch.position_ids"][REAL])
    G.close(_take(seq.h, order)[REAL], G["batch.packed_embeds"][REAL])
    rows = visible(seq)[:, 0].gather(1, order[..., None].expand(-1, -1, order.shape[1]))
    seen = rows.gather(2, order[:, None].expand(-1, order.shape[1], -1))
    assert torch.equal(seen[REAL], G["batch.regular_mask_visible"].bool()[REAL])


def test_masks_and_positions_of_proxies(run):
    seq, wide = run.before[START], run.proxies[START]
    order, size = _packed(seq), seq.pos.shape[1]
    proxies = torch.arange(size, wide.pos.shape[1]).expand(len(order), -1)
    assert torch.equal(wide.pos[:, size:], G["batch.proxy_position_ids"])
    queries = torch.cat([proxies, order[:, N:]], 1)
    keys = torch.cat([order[:, :N], queries], 1)
    mask = wide.mask[:, 0] & wide.valid[:, None]
    mask = mask.gather(1, queries[..., None].expand(-1, -1, mask.shape[-1]))
    mask = mask.gather(2, keys[:, None].expand(-1, queries.shape[1], -1))
    real = wide.valid.gather(1, queries)
    assert torch.equal(mask[real], G["batch.proxy_mask_visible"].bool()[real])


def test_layers_logits_and_loss(run, kind):
    order, size = _packed(run.before[0]), run.before[0].pos.shape[1]
    for match in G.names(rf"{kind}\.layer(\d+)_output"):
        index = int(match[1])
        got, real = _take(run.after[index], order), REAL
        if index >= START:
            got = torch.cat([run.proxies[index].h[:, size:], got[:, N:]], 1)
            real = torch.cat([torch.ones_like(REAL[:, : got.shape[1] - REAL.shape[1] + N]), REAL[:, N:]], 1)
        G.close(got[real], G[match[0]][real])
    text = REAL & (torch.arange(REAL.shape[1]) >= N)
    G.close(_take(run.out.logits, order)[text], G[f"{kind}.logits"][text])
    G.close(run.out.loss, f"{kind}.loss")


def test_without_proxies():
    run = _run(_model("pool", start=LAYERS), **BATCH)
    G.close(_take(run.out.logits, _packed(run.before[0]))[REAL], G["off.logits"][REAL])
    G.close(run.out.loss, "off.loss")


def test_greedy_decoding(kind):
    model = _model(kind)
    out, got = _run(model, G["gen.prompt_ids"], [[0]]).out, []
    cache = out.past_key_values
    assert cache.lengths() == [G["gen.prompt_ids"].shape[1] + N] * LAYERS  # no proxies; image and separator for one id
    for want in G[f"{kind}.gen.step_logits"]:
        G.close(out.logits[0, -1], want)
        got.append(int(out.logits[0, -1].argmax()))
        with torch.no_grad():
            out = model(input_ids=torch.tensor([[got[-1]]]), past_key_values=cache)
    assert got == G[f"{kind}.gen.new_ids"].tolist()


CROPS = {"ids": G["batch.input_ids"][:1], "images": [[0, 1, 2]], "labels": G["batch.labels_in"][:1]}


def test_several_crops_with_the_official_separators():
    run = _run(_model("pool", official_tiles=True), **CROPS)
    seq = run.before[0]
    order = _packed(seq)
    assert torch.equal(seq.pos.gather(1, order), G["crops.position_ids"])
    assert torch.equal(run.proxies[START].pos[:, seq.pos.shape[1] :], G["crops.proxy_position_ids"])
    text = G["crops.logits_text"]
    G.close(_take(run.out.logits, order)[:, -text.shape[1] :], text)
    G.close(run.out.loss, "crops.loss")


def test_our_separators_follow_their_crop():
    """The released code forgets the separators before a crop's own; by default ours does not."""
    run = _run(_model("pool"), **CROPS)
    seq = run.before[0]
    separators = seq.pos[seq.vis & (seq.rank % (N + 1) == N)].tolist()
    official = json.loads(f"[{str(G.manifest['behaviours']['crops: three crops, separator positions']).strip('[]')}]")
    last = [end + 1 for _, end in G.manifest["behaviours"]["crops: first and last position of each crop"]]
    assert separators == last != official
    text = G["crops.logits_text"]
    assert (_take(run.out.logits, _packed(seq))[:, -text.shape[1] :] - text).abs().max() > 10 * G.manifest["tolerance"][
        "atol"
    ]  # fmt: skip


def test_one_crop_has_no_such_difference():
    a, b = (_run(_model("pool", official_tiles=flag), **BATCH).out.logits for flag in (False, True))
    G.close(a[REAL], b[REAL])


# -- pieces ---------------------------------------------------------------------------------------------------------


def _crops(name):
    """One crop a row, from rows of several."""
    crops = G["proxy_pool.input"].shape[1] // N
    return G[name].unflatten(1, (crops, -1)).flatten(0, 1)


@pytest.mark.parametrize("match", G.names(r"proxy_pool\.output(?:_factor(\d+))?"), ids=lambda m: m[0])
def test_pooled_proxies(match):
    G.close(resized(_crops("proxy_pool.input"), GRID, int(match[1] or FACTOR)), _crops(match[0]))


def _learned():
    queries = G["proxy_learn.queries"]
    module = ProxyInitializer(G["proxy_learn.Wk"].shape[1], queries.shape[1], len(queries))
    module.load_state_dict({"Wk.weight": G["proxy_learn.Wk"], "proxyv_tokens": queries})
    return module(_crops("proxy_pool.input"))


def test_learned_proxies():
    proxies, spread = _learned()
    G.close(proxies, _crops("proxy_learn.output"))
    G.close(spread, "proxy_learn.splat_weights")


def test_light_mlp():
    weights = {m[1]: G[m[0]] for m in G.names(r"vision_mlp\.weight\.(.+)")}
    width, hidden = weights["input_proj.weight"].shape
    module = VisionMLP(hidden, width)
    module.load_state_dict(weights)
    full = _crops("proxy_pool.input")
    spread = repeated(GRID, FACTOR, full)
    G.close(module(full, _crops("proxy_pool.output"), spread), _crops("vision_mlp.output"))
    got = module(full, _crops("proxy_learn.output"), G["proxy_learn.splat_weights"])
    G.close(got, _crops("vision_mlp.output_learned_splat"))
