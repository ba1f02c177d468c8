from __future__ import annotations

import pytest
import torch

from spherequant.embedding.backbone import SMALLEST
from spherequant.training.progressive import pixels_seen, resized, side_at


@pytest.mark.parametrize(
    ("epochs", "size", "share", "sides"),
    [
        (6, 32, 2 / 3, [16, 16, 24, 24, 32, 32]),
        (4, 64, 0.5, [32, 48, 64, 64]),
        (3, 32, 0.0, [32, 32, 32]),
        (1, 32, 2 / 3, [32]),  # the last epoch sees images as they are
        (2, 224, 0.9, [168, 224]),
        (3, 16, 2 / 3, [16, 16, 16]),
        (3, 8, 2 / 3, [8, 8, 8]),
        (3, 24, 2 / 3, [16, 16, 24]),
        (2, 32, 1 - 1e-12, [16, 32]),
    ],
)
def test_images_grow_with_the_epochs(epochs, size, share, sides):
    assert [side_at(epoch, epochs, size, share) for epoch in range(epochs)] == sides


@pytest.mark.parametrize("size", [16, 17, 30, 64, 225])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 40])
def test_images_never_shrink_and_end_at_their_size(epochs, size, share):
    sides = [side_at(epoch, epochs, size, share) for epoch in range(epochs)]
    assert sides == sorted(sides)
    assert sides[-1] == size
    assert min(sides) >= SMALLEST


def test_the_pixels_seen_are_the_areas_of_the_epochs():
    sides = [16, 16, 24, 24, 32, 32]
    for done in range(7):
        assert pixels_seen(done, 6, 32, 2 / 3) == sum(side**2 for side in sides[:done])
    assert pixels_seen(4.25, 6, 32, 2 / 3) == pixels_seen(4, 6, 32, 2 / 3) + 1024 / 4


def test_each_pixel_takes_part_in_those_that_replace_it():
    # Half the side: a triangle over the four pixels of a row around each new one's middle.
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    halved = resized(images, 4)
    assert halved.shape == (2, 3, 4, 4)
    weights = torch.tensor([1, 3, 3, 1]) / 8
    patch = images[:, :, 1:5, 3:7]  # around the pixel of row 1 and column 2
    expected = torch.einsum("bcij,i,j->bc", patch, weights, weights)
    torch.testing.assert_close(halved[:, :, 1, 2], expected)


def test_nothing_is_copied_at_the_full_side():
    images = torch.rand(2, 3, 16, 16)
    assert resized(images, 16) is images
