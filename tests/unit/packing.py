"""Samples in rows of their own and the same samples packed into one row, for tests."""

import torch
from tiny_llava import IMAGE, prompt


def samples(turns=False):
    """Return (ids, labels, segments, has an image) of samples of very different lengths, one of them without image."""
    out = []
    for number, (length, at) in enumerate([(9, 3), (4, 1), (7, None), (14, 2)]):
        ids = prompt(length, at=at, seed=number)
        segments = torch.zeros(length, dtype=torch.long)
        if turns:
            segments[4:] = 1
            segments[6:] = 2
        labels = torch.where((torch.arange(length) > (3 if turns else 0)) & (ids != IMAGE), ids, -100)
        out.append((ids, labels, segments, at is not None))
    return out


def padded(rows, turns=False):
    """Return model inputs with one sample a row."""
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([r[0] for r in rows], batch_first=True)
    batch = {
        "input_ids": ids,
        "attention_mask": pad([torch.ones_like(r[0]) for r in rows], batch_first=True),
        "labels": pad([r[1] for r in rows], batch_first=True, padding_value=-100),
        "loss_weights": (1 + ids % 3).float() / 2,
    }
    if turns:
        batch["segment_ids"] = pad([r[2] for r in rows], batch_first=True, padding_value=-1)
    return batch


def packed(rows, turns=False):
    """Return the same inputs with all samples in one row."""
    ids = torch.cat([r[0] for r in rows])[None]
    numbers = [torch.full_like(r[0], number) for number, r in enumerate(rows)]
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.cat([r[1] for r in rows])[None],
        "loss_weights": (1 + ids % 3).float() / 2,
        "document_ids": torch.cat(numbers)[None],
    }
    if turns:
        batch["segment_ids"] = torch.cat([r[2] for r in rows])[None]
    return batch


def reference_flash():
    """Return stand-ins of a flash-attention package's two functions, in plain torch."""

    def dense(q, k, v, softmax_scale=None, causal=False):
        assert causal
        size, keys = q.shape[1], k.shape[1]
        seen = torch.ones(size, keys, dtype=torch.bool).tril(keys - size)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        attend = torch.nn.functional.scaled_dot_product_attention
        return attend(q, k, v, attn_mask=seen, scale=softmax_scale, enable_gqa=True).transpose(1, 2)

    def ragged(q, k, v, *, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, **options):
        parts = []
        for run in range(len(cu_seqlens_q) - 1):
            a, b = cu_seqlens_q[run : run + 2].tolist()
            c, d = cu_seqlens_k[run : run + 2].tolist()
            assert b - a <= max_seqlen_q and d - c <= max_seqlen_k
            parts.append(dense(q[None, a:b], k[None, c:d], v[None, c:d], **options)[0])
        return torch.cat(parts), None

    return dense, ragged
