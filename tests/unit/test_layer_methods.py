"""Methods that replace what a decoder layer does: queries from a subset, VoCo's cache, proxies, mixture of depths."""

import pytest
import torch
from tiny_llava import IMAGE, LAYERS, PATCHES, pad, pixels, prompt, spec, tiny_model

from visiontokens.compress import MethodSpec, Seq
from visiontokens.compress.base import Compressor, Geometry
from visiontokens.compress.places import compact, take, visible
from visiontokens.measure.budget import method_cost
from visiontokens.measure.flops import VICUNA_7B, prefill_flops
from visiontokens.models.llama import Prefill
from visiontokens.models.state import VisionCache

CLOSE = {"atol": 2e-5, "rtol": 1e-4}
EXACT = {"atol": 1e-6, "rtol": 1e-5}
GEOMETRY = Geometry(16, 4, (12, 12), 16, LAYERS)
VARIANTS = [
    spec("voco"), spec("voco", tokens=3, separator=True), spec("proxyv"), spec("proxyv", learned=True, newline=False),
    spec("proxyv", start=0), spec("mod"), spec("mod", layers="all", share=0.4, weight="score"),
]  # fmt: skip


def shaken(method, **kwargs):
    """A model whose own parts are away from their first values, so that routers disagree with the order of ties."""
    model = tiny_model(method, **kwargs)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.compressor.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))
    return model


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda m: f"{m.name}-{'-'.join(map(str, m.params.values()))}")
def model(request):
    return shaken(request.param)


def text_seq(lengths=(9, 6), left=False, width=16, seed=0):
    """Random states of rows of text."""
    size = max(lengths)
    steps = torch.arange(size).expand(len(lengths), -1)
    ok = torch.stack([steps[0] >= size - n if left else steps[0] < n for n in lengths])
    h = torch.randn(len(lengths), size, width, generator=torch.Generator().manual_seed(seed))
    pos = (ok.long().cumsum(1) - 1).clamp_min(0)
    return Seq(h, pos, steps, torch.full_like(pos, -1), torch.zeros_like(pos), None if bool(ok.all()) else ok)


def caller(model, index, cache=None):
    return model.model.language_model._caller(index, Prefill(None, Compressor(None, GEOMETRY), cache), {})


# -- a layer with some queries --------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["visiontokens_sdpa", "eager"])
@pytest.mark.parametrize("own_mask", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_some_queries_equal_the_stock_layer_with_the_others_thrown_away(attention, own_mask, left):
    model = tiny_model()
    model.set_attn_implementation({"text_config": attention})
    seq, draw = text_seq(left=left), torch.Generator().manual_seed(1)
    if own_mask:
        seq.mask = visible(seq) & (torch.rand(2, 1, 9, 9, generator=draw) < 0.7)
    queries = (torch.rand(2, 9, generator=draw) < 0.5) & seq.valid
    with torch.no_grad():
        want = caller(model, 1)(seq)
        seq.memo.clear()
        got = caller(model, 1)(seq, queries=queries)
    index, ok = compact(queries)
    real = torch.ones_like(index, dtype=torch.bool) if ok is None else ok
    torch.testing.assert_close(got[real], take(want, index)[real], **EXACT)


def test_some_queries_under_gradient_checkpointing():
    grads = []
    for checkpointing in (False, True):
        model = tiny_model().train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        seq = text_seq((9, 9))
        seq.h.requires_grad_(True)
        caller(model, 1)(seq, queries=seq.pos % 2 == 0).square().sum().backward()
        attention = model.model.language_model.layers[1].self_attn
        grads.append([seq.h.grad, attention.k_proj.weight.grad, attention.q_proj.weight.grad])
    for a, b in zip(*grads, strict=True):
        assert a.abs().sum() > 0
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("some", [False, True])
def test_rows_that_are_not_cached(some):
    model, cache, seq = tiny_model(), VisionCache(), text_seq(left=True)
    cached = seq.pos % 3 > 0
    with torch.no_grad():
        caller(model, 0, whole := VisionCache())(seq)
        caller(model, 0, cache)(seq, queries=seq.valid if some else None, cached=cached)
    index, ok = compact(cached & seq.valid)
    for name in ("keys", "values"):
        kept, before = getattr(cache.layers[0], name), getattr(whole.layers[0], name)
        want = take(before[:, 0], index)
        torch.testing.assert_close(kept[:, 0][ok], want[ok], **EXACT)
    assert torch.equal(cache.key_ok[0], ok)


def test_flash_attention_refuses_some_queries():
    model = tiny_model()
    model.model.language_model.config._attn_implementation = "visiontokens_flash_attention_2"
    seq = text_seq((5, 5))
    with pytest.raises(ValueError, match="a method that does so declares dense_mask"):
        caller(model, 0)(seq, queries=seq.pos > 2)


def test_a_shortened_cache_moves_as_one():
    cache, keys = VisionCache(), torch.arange(24.0).view(2, 1, 6, 2)
    for layer in range(2):
        cache.update(keys + layer, -keys, layer)
        cache.key_ok.append(None)
        cache.vision.append(torch.tensor([[0, 1, 1, 1, 0, 0]] * 2).bool())
    mask = torch.tensor([[0, 1, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0]]).bool()
    twin = cache.fork()
    for layer in range(2):
        cache.keep(layer, mask)
    assert cache.lengths() == [4, 4] and twin.lengths() == [6, 6]
    assert cache.key_ok[0] is cache.key_ok[1]  # one attention mask while decoding
    assert cache.vision[0].tolist() == [[True, True, False, False], [True, False, False, False]]
    assert torch.equal(cache.layers[1].keys[1, 0, :2], keys[1, 0, 3:5] + 1)
    swapped = cache.select(torch.tensor([1, 0]))
    assert swapped.vision[1].sum(1).tolist() == [1, 2] and swapped.key_ok[0].sum(1).tolist() == [2, 4]


# -- what all three promise, away from their first values -----------------------------------------------------------


def _mixed():
    """An image row, a row with two images and more text, a row of text."""
    two = prompt(10, at=2, seed=4)
    two[5] = IMAGE
    return [prompt(9, at=3, seed=1), two, prompt(5, at=None, seed=2)], pixels(3), [[0], [1, 2], []]


@pytest.mark.parametrize("left", [False, True])
def test_mixed_rows_are_single_rows(model, left):
    rows, images, own = _mixed()
    ids, mask = pad(rows, left)
    with torch.no_grad():
        batch = model(input_ids=ids, attention_mask=mask, pixel_values=images).logits
        for i, row in enumerate(rows):
            kwargs = {"pixel_values": images[own[i]]} if own[i] else {}
            one = model(input_ids=row[None], **kwargs).logits[0]
            got = batch[i, -len(one) :] if left else batch[i, : len(one)]
            torch.testing.assert_close(got, one, **CLOSE)


@pytest.mark.parametrize("left", [False, True])
def test_decoding_continues_the_full_forward(model, left):
    rows, images, _ = _mixed()
    state = model.prefill(*pad(rows, left), pixel_values=images)
    more = [prompt(n, at=None, seed=20 + n) for n in (3, 5, 4)]
    logits, grown = model.extend(state, *pad(more, left))
    _, last = model.extend(grown, torch.full((3, 1), 7))
    whole = [torch.cat([row, new, torch.tensor([7])]) for row, new in zip(rows, more, strict=True)]
    with torch.no_grad():
        want = model(input_ids=pad(whole)[0], attention_mask=pad(whole)[1], pixel_values=images).logits
        ends = model._splice(*pad(whole), model._images(images, None, None))[0].last()
    for i, new in enumerate(more):
        got = logits[i, -len(new) :] if left else logits[i, : len(new)]
        torch.testing.assert_close(got, want[i, ends[i] - len(new) : ends[i]], **CLOSE)
        torch.testing.assert_close(last.logits[i], want[i, ends[i]], **CLOSE)


def test_isolated_turns_are_single_turns(model):
    prefix, turns = prompt(5, at=3, seed=3), [prompt(n, at=None, seed=10 + n) for n in (4, 6, 3)]
    ids = torch.cat([prefix, *turns])
    parts = [torch.zeros(len(prefix), dtype=torch.long)]
    parts += [torch.full((len(turn),), t + 1) for t, turn in enumerate(turns)]
    with torch.no_grad():
        out = model(input_ids=ids[None], segment_ids=torch.cat(parts)[None], pixel_values=pixels(1)).logits[0]
        end = len(out)
        for turn in reversed(turns):
            one = model(input_ids=torch.cat([prefix, turn])[None], pixel_values=pixels(1)).logits[0]
            torch.testing.assert_close(out[end - len(turn) : end], one[-len(turn) :], **CLOSE)
            end -= len(turn)


def test_frames_of_a_video(model):
    video = pixels(3).unflatten(0, (1, 3))
    state = model.prefill(prompt(7)[None], pixel_values=video)
    counts = [3 * rows for rows in model.compressor.kv_per_layer(PATCHES, LAYERS)]
    assert [int(vision.sum()) for vision in state.cache.vision] == counts


# -- VoCo -----------------------------------------------------------------------------------------------------------


def test_text_sees_every_image_through_its_voco_tokens_only():
    model = tiny_model(spec("voco"))
    rows, images, own = _mixed()
    seq, _ = model._splice(rows[1][None], None, model._images(images[own[1]], None, None))
    compressor = model.compressor
    seen = compressor.begin(seq, model.model.language_model).mask[0, 0]
    roles = compressor.roles(seq)
    voco, raw = roles.voco[0], roles.raw[0]
    assert seen[-1][voco].all() and not seen[-1][raw].any()
    text = len(rows[1]) - 2 - 2  # two images, two tokens before the first
    assert seen[-1].sum() == 2 * compressor.params.tokens + text
    second = (raw & (seq.image[0] == 1)).nonzero()[-1, 0]
    assert not seen[second][raw & (seq.image[0] == 0)].any() and seen[second][raw & (seq.image[0] == 1)].all()
    assert seen[second][:2].all()


def test_voco_forgets_the_image_but_not_its_place():
    model = tiny_model(spec("voco", tokens=1))
    ids = prompt(7, at=2)
    state = model.prefill(ids[None], pixel_values=pixels(1))
    assert state.cache.lengths() == [1 + 4] * LAYERS
    assert state.next_pos.item() == len(ids) - 1 + PATCHES + 1


# -- ProxyV ---------------------------------------------------------------------------------------------------------


def test_proxies_are_the_means_of_central_patches():
    from visiontokens.compress.proxyv import repeated, resized

    full = torch.randn(2, 64, 5)
    want = full.view(2, 2, 4, 2, 4, 5)[:, :, 1:3, :, 1:3].mean((2, 4)).flatten(1, 2)
    torch.testing.assert_close(resized(full, (8, 8), 4), want)
    assert repeated((8, 8), 4, full)[0].argmax(1).view(8, 8)[3:5, 3:5].tolist() == [[0, 1], [2, 3]]


def test_the_light_mlps_have_a_learning_rate_of_their_own():
    compressor = MethodSpec(name="proxyv", params={"rate": 0.25}).build(GEOMETRY)
    light = {id(p) for p in compressor.vision_mlp_layers.parameters()}
    rates = {id(p): group["lr"] for group in compressor.parameter_groups(1e-3) for p in group["params"]}
    assert {rate for key, rate in rates.items() if key in light} == {2.5e-4}
    assert {rate for key, rate in rates.items() if key not in light} == {1e-3}


def test_light_mlps_have_the_published_number_of_weights():
    with torch.device("meta"):
        compressor = MethodSpec(name="proxyv").build(Geometry(1024, 24, (24, 24), 4096, 32))
    per_layer = sum(p.numel() for p in compressor.vision_mlp_layers[0].parameters())
    assert per_layer == 3 * 4096 * 1024 + 2 * 1024**2 + 4096
    assert len(compressor.vision_mlp_layers) == 20 and compressor.n_proxies == 36


@pytest.mark.parametrize(
    ("params", "message"), [({"factor": 5}, "factor 5 does not divide the grid 12x12"), ({"start": -1}, "0 or more")]
)
def test_proxyv_says_what_it_cannot_do(params, message):
    with pytest.raises(ValueError, match=message):
        MethodSpec(name="proxyv", params=params).build(GEOMETRY)


# -- mixture of depths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "routed"),
    [("all", [0, 1, 2, 3]), ("all-deep", [2, 3]), ("interleaved", [1, 3]), ("interleaved-deep", [3])],
)
def test_where_tokens_pass_by(layers, routed):
    method = MethodSpec(name="mod", params={"layers": layers, "share": 0.25}).build(GEOMETRY)
    assert method.routed(LAYERS) == routed
    few = PATCHES // 4
    assert method.tokens_per_layer(PATCHES, LAYERS) == [few if i in routed else PATCHES for i in range(LAYERS)]
    assert method.tokens_per_layer(2 * PATCHES, LAYERS)[-1] == 2 * few


def test_every_frame_keeps_its_best_tokens():
    method = MethodSpec(name="mod", params={"share": 0.1}).build(GEOMETRY)
    count = method.kept(PATCHES)
    size, start = 2 * PATCHES + 5, 3
    steps = torch.arange(size)[None]
    vis = (steps >= start) & (steps < start + 2 * PATCHES)
    seq = Seq(torch.zeros(1, size, 16), steps, steps, torch.where(vis, 0, -1), torch.where(vis, steps - start, 0))
    score = torch.randn(1, size, generator=torch.Generator().manual_seed(0))
    chosen = method.chosen(score, seq)
    assert chosen[~vis].all() and chosen[vis].view(2, -1).sum(1).tolist() == [count, count]
    frames = score[vis].view(2, -1)
    assert torch.equal(chosen[vis].view(2, -1), frames >= frames.topk(count).values[:, -1:])
    even = method.chosen(torch.zeros_like(score), seq)[vis].view(2, 2, 6, 2, 6).sum((2, 4))
    assert even.max() - even.min() <= 2  # equal scores spread over the quarters of a frame


@pytest.mark.parametrize("weight", ["gain", "score"])
def test_tokens_that_pass_by_keep_their_state_and_the_others_are_weighed(weight):
    model = shaken(spec("mod", share=0.3, weight=weight))
    compressor, seen = model.compressor, {}
    inner = compressor.run_layer

    def spy(index, seq, lm, call):
        seen[index] = seq, inner(index, seq, lm, call)
        if index == 1:
            score = compressor.routers["1"](seq.h)
            picked = compressor.chosen(score[..., 0], seq)
            seen["want"] = picked, score, lm.layers[1]
        return seen[index][1]

    compressor.run_layer = spy
    state = model.prefill(prompt(7)[None], pixel_values=pixels(1))
    (seq, out), (picked, score, layer) = seen[1], seen["want"]
    assert torch.equal(out[~picked], seq.h[~picked])
    short = seq.keep(picked)
    with torch.no_grad():
        rope = model.model.language_model.rotary_emb(short.h, position_ids=short.pos)
        update = layer(short.h, position_embeddings=rope) - short.h
    factor = (1 + 0.2 * torch.tanh(score) if weight == "gain" else score).where(seq.vis[..., None], 1)
    want = short.h + factor[picked][None] * update
    torch.testing.assert_close(out[picked][None], want, **CLOSE)
    assert state.cache.layers[1].keys.shape[2] == int(picked.sum())  # skipped tokens write no key


def test_gain_is_one_at_the_start():
    base, start = tiny_model(), tiny_model(spec("mod", share=1.0, layers="all"))
    kwargs = {"input_ids": prompt(7)[None], "pixel_values": pixels(1)}
    with torch.no_grad():
        torch.testing.assert_close(start(**kwargs).logits, base(**kwargs).logits, **EXACT)


# -- cost at the papers' size ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "share"),
    [(spec("proxyv", start="12/32"), 0.60), (spec("proxyv", start="16/32"), 0.68), (spec("mod", share=0.2), 0.637)],
    ids=["proxyv-12", "proxyv-16", "mod"],
)
def test_share_of_the_prefill_that_is_left_at_7b(method, share):
    """576 vision and 64 text tokens, decoder only; ProxyV publishes 46 % and 36 % less for 2885 tokens."""
    plain, cost = method_cost(MethodSpec(), VICUNA_7B), method_cost(method, VICUNA_7B)
    extra = cost.flops - plain.flops
    few = prefill_flops(VICUNA_7B, cost.tokens, 64, queries=cost.queries, head="none") + extra
    assert few / prefill_flops(VICUNA_7B, plain.tokens, 64, head="none") == pytest.approx(share, abs=0.01)
