"""Image tokens replace their placeholders, and labels, segments and positions follow."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visiontokens.compress.sequence import positions
from visiontokens.models.splice import IGNORE, PlaceholderError, plan

IMAGE = 9


@st.composite
def batches(draw):
    """Rows of text and placeholders, padded on one side, and how many tokens each image has."""
    rows, counts = [], []
    for _ in range(draw(st.integers(1, 3))):
        row = [draw(st.sampled_from([1, 2, IMAGE])) for _ in range(draw(st.integers(1, 6)))]
        counts += [draw(st.integers(1, 4)) for token in row if token == IMAGE]
        rows.append(row)
    return rows, counts, draw(st.booleans())


@settings(max_examples=60)
@given(batches())
def test_every_row_is_its_text_with_images_in_place(batch):
    rows, counts, left = batch
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(r)) + r if left else r + [0] * (width - len(r)) for r in rows])
    mask = torch.tensor(
        [[0] * (width - len(r)) + [1] * len(r) if left else [1] * len(r) + [0] * (width - len(r)) for r in rows]
    )
    layout = plan(ids, mask, IMAGE, counts, [5] * len(counts))
    images = [torch.full((count, 1), 100.0 + i) for i, count in enumerate(counts)]
    embeds = layout.embed(ids[..., None].float(), images)[..., 0]
    labels = layout.labels(ids)
    images_left = iter(images)
    for b, row in enumerate(rows):
        want = [x for t in row for x in (next(images_left)[:, 0].tolist() if t == IMAGE else [float(t)])]
        ok = layout.valid[b]
        assert embeds[b][ok].tolist() == want
        assert not embeds[b][~ok].any() or counts == [1] * len(counts)
        assert [x for x in labels[b].tolist() if x != IGNORE] == [t for t in row if t != IMAGE]
        assert positions(layout.valid)[b][ok].tolist() == list(range(len(want)))


def test_runs_of_tokens_and_of_patches_are_understood():
    for span in (1, 2, 6):
        ids = torch.tensor([[1] + [IMAGE] * span + [2] + [IMAGE] * span])
        layout = plan(ids, None, IMAGE, [2, 2], [6, 6])
        assert layout.image.tolist() == [[-1, 0, 0, -1, 1, 1]]
        assert layout.rank.tolist() == [[0, 0, 1, 0, 0, 1]]


def test_two_images_side_by_side_are_two_images():
    layout = plan(torch.tensor([[1, IMAGE, IMAGE, 2]]), None, IMAGE, [3, 1], [4, 4])
    assert layout.image.tolist() == [[-1, 0, 0, 0, 1, -1]]


@pytest.mark.parametrize(
    ("ids", "counts", "words"),
    [
        ([[1, IMAGE]], [2, 2], "1 image placeholders for 2 images: expected 2"),
        ([[1, 2]], [2], "0 image placeholders for 1 images"),
        ([[1, IMAGE]], [], "1 image placeholders for 0 images"),
        ([[1, IMAGE, 2, IMAGE]], [2], "not one unbroken run"),
        ([[1, IMAGE], [IMAGE, 1]], [2], "not one unbroken run"),
    ],
)
def test_images_that_do_not_fit_are_named(ids, counts, words):
    with pytest.raises(PlaceholderError, match=words):
        plan(torch.tensor(ids), None, IMAGE, counts, [4] * len(counts))


def test_labels_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="shape of input_ids"):
        plan(torch.tensor([[1, IMAGE]]), None, IMAGE, [2], [4]).labels(torch.zeros(1, 3))


def test_turns_restart_after_the_prefix():
    segments = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 1, 1, 1, 2, -1, -1]])
    pos = positions(segments >= 0, segments)
    assert pos[0].tolist() == [0, 1, 2, 3, 4, 3, 4, 5]
    assert pos[1, :6].tolist() == [0, 1, 2, 3, 4, 2]
