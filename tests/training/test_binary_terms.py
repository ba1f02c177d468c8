from __future__ import annotations

import pytest
import torch

from spherequant.training import TrainConfig
from spherequant.training.binary_losses import (
    central_similarity_loss,
    orthogonal_target_loss,
    sign_quantization_loss,
)
from spherequant.training.binary_terms import LOGIT_GAIN, BinaryTerms, class_targets

LABELS = torch.tensor([[1, 0, 0], [0, 0, 1]], dtype=torch.bool)
CODE = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))


def test_central_similarity_has_two_terms_of_the_same_outputs():
    config = TrainConfig(bits=16, objective="csq")
    terms = BinaryTerms(config, 3)(CODE, LABELS)
    centre = class_targets(config, 3)[[0, 2]]
    assert set(terms) == {"central", "quantization"}
    torch.testing.assert_close(terms["central"], central_similarity_loss(LOGIT_GAIN * CODE, centre))
    torch.testing.assert_close(terms["quantization"], sign_quantization_loss(LOGIT_GAIN * CODE))


def test_orthogonal_targets_have_one_loss_of_unit_targets():
    config = TrainConfig(bits=16, objective="orthohash", softmax_scale=7.0, softmax_margin=0.3)
    z = torch.nn.functional.normalize(CODE)
    terms = BinaryTerms(config, 3)(z, LABELS)
    unit = class_targets(config, 3) / 4
    assert set(terms) == {"orthogonal"}
    torch.testing.assert_close(
        terms["orthogonal"], orthogonal_target_loss(z, unit, LABELS, scale=7.0, margin=0.3)
    )


@pytest.mark.parametrize("objective", ["csq", "orthohash"])
def test_a_code_at_its_centre_costs_least(objective):
    config = TrainConfig(bits=16, objective=objective, softmax_scale=8.0, softmax_margin=0.2)
    terms = BinaryTerms(config, 3)
    at_centre = class_targets(config, 3)[[0, 2]] / 4
    best = sum(terms(at_centre, LABELS).values())
    assert best < sum(terms(CODE / 4, LABELS).values())
    assert best < sum(terms(-at_centre, LABELS).values())


def test_images_of_the_same_labels_have_the_same_centre():
    # Bits in which the two centres differ are ties, which a draw decides: once for these labels.
    both = torch.tensor([[1, 1, 0]], dtype=torch.bool)
    terms = BinaryTerms(TrainConfig(bits=16, objective="csq"), 3)
    one = terms(CODE[:1], both)["central"]
    for count in (2, 7):
        several = terms(CODE[:1].expand(count, -1), both.expand(count, -1))["central"]
        torch.testing.assert_close(several, one)
