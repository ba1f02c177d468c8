from __future__ import annotations

import pytest
import torch

from spherequant.embedding.backbone import SMALLEST
from spherequant.training.progressive import resized, side_at


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


def test_half_the_side_is_near_the_mean_of_four_pixels():
    images = torch.arange(64.0).reshape(1, 1, 8, 8).expand(2, 3, 8, 8).contiguous()
    halved = resized(images, 4)
    assert halved.shape == (2, 3, 4, 4)
    means = torch.nn.functional.avg_pool2d(images, 2)
    inner = (slice(None), slice(None), slice(1, 3), slice(1, 3))
    torch.testing.assert_close(halved[inner], means[inner])


def test_nothing_is_copied_at_the_full_side():
    images = torch.rand(2, 3, 16, 16)
    assert resized(images, 16) is images
