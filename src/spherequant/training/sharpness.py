"""How sure a prediction is taken to be when a code is pulled towards it: by held-out images.

And how many labels are predicted, where images have several.

The classifier's probabilities depend on the margin, the smoothing of labels, the number of classes
and on how well the network fits: sure and wrong in one training, timid and right in another.
``ClassTarget`` therefore multiplies its logits with a sharpness, and the one that ranks images best
that the network has not seen is found here, as a temperature is found by such images (Guo et al.,
"On Calibration of Modern Neural Networks", ICML 2017), but for the ranking and not the likelihood.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spherequant.quantizer.target import REACH, SHARPNESS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spherequant.quantizer import ClassTarget

# Images of several labels want smaller ones than images of one do.
SHARPNESSES = (0.06, 0.09, 0.12, 0.18, 0.25, 0.35, 0.5, 0.7, SHARPNESS, 1.4, 2.0, 2.8, 4.0)
REACHES = tuple(REACH * factor for factor in (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16))
LEAST_ASKING = 20  # fewer would choose by chance
MOST_ASKING, MOST_SEARCHED = 1_000, 5_000  # what takes seconds


@dataclass(frozen=True, slots=True)
class LabelledVectors:
    """Embeddings and what is given of them.

    Attributes:
        z_ND: float32 [N, D].
        labels_NC: bool [N, C].
    """

    z_ND: np.ndarray
    labels_NC: np.ndarray


def choose_sharpness(
    target: ClassTarget,
    trained: LabelledVectors,
    held_out: LabelledVectors,
    *,
    normalised: bool = True,
) -> float:
    """Return the sharpness whose targets the held-out images find best.

    Each held-out image asks twice, with its embedding: the targets of trained images, which are
    what most databases hold, and the targets of the other held-out images, which the network knows
    as little as any image that is added later. Of the sharpnesses whose mean of both average
    precisions is above that of plain probabilities by two standard errors, the one with the largest
    is taken.

    Args:
        target: with any sharpness.
        trained: images that the network was trained on.
        held_out: images that it was not trained on.
        normalised: embeddings have length one; otherwise by Euclidean distance.

    Returns:
        one of ``SHARPNESSES``; ``SHARPNESS`` where none is better beyond chance.
    """
    if len(held_out.z_ND) < LEAST_ASKING:
        return SHARPNESS
    relevant_QT = held_out.labels_NC @ trained.labels_NC.T
    relevant_QQ = held_out.labels_NC @ held_out.labels_NC.T
    np.fill_diagonal(relevant_QQ, val=False)
    found = []
    for sharpness in SHARPNESSES:
        tried = dataclasses.replace(target, sharpness=sharpness)
        to_trained_QT, to_held_out_QQ = (
            _scores(held_out.z_ND, tried.target(one.z_ND), normalised=normalised)
            for one in (trained, held_out)
        )
        np.fill_diagonal(to_held_out_QQ, -np.inf)  # last, and not relevant
        found.append(
            _average_precision(to_trained_QT, relevant_QT)
            + _average_precision(to_held_out_QQ, relevant_QQ)
        )
    return _best(SHARPNESSES, found, SHARPNESS)


def choose_reach(target: ClassTarget, held_out: LabelledVectors) -> float:
    """Return the reach with which the labels of held-out images are predicted best.

    That is the largest mean over images of F1 = 2 |P and Y| / (|P| + |Y|), of predicted labels P
    and given labels Y, of those that are above that of ``REACH`` by two standard errors.

    Args:
        target: of several labels an image, with any reach.
        held_out: images that the network was not trained on.

    Returns:
        one of ``REACHES``; ``REACH`` where none is better beyond chance.
    """
    if len(held_out.z_ND) < LEAST_ASKING:
        return REACH
    found = []
    for reach in REACHES:
        predicted_NC = dataclasses.replace(target, reach=reach).predict(held_out.z_ND)
        shared_N = (predicted_NC & held_out.labels_NC).sum(axis=1)
        found.append(2 * shared_N / (predicted_NC.sum(axis=1) + held_out.labels_NC.sum(axis=1)))
    return _best(REACHES, found, REACH)


def _best(choices: Sequence[float], found: Sequence[np.ndarray], default: float) -> float:
    """The choice whose measures are largest, of those that are above the default's beyond chance.

    The largest of all may be far from the default, and its gain less sure than that of one between.
    """
    gains_SQ = np.asarray(found) - found[choices.index(default)]
    errors_S = gains_SQ.std(axis=1, ddof=1) / gains_SQ.shape[1] ** 0.5
    means_S = gains_SQ.mean(axis=1)
    surely = means_S > 2 * errors_S
    return choices[int(np.where(surely, means_S, -np.inf).argmax())] if surely.any() else default


def _scores(z_QD: np.ndarray, u_ND: np.ndarray, *, normalised: bool) -> np.ndarray:
    scores_QN = z_QD @ u_ND.T
    if not normalised:
        scores_QN -= np.square(u_ND).sum(axis=1) / 2
    return np.asarray(scores_QN)


def _average_precision(scores_QN: np.ndarray, relevant_QN: np.ndarray) -> np.ndarray:
    """Of scores without ties; 0 where nothing is relevant. Reports use `evaluation`."""
    order_QN = np.argsort(-scores_QN, axis=1, kind="stable")
    hits_QN = np.take_along_axis(relevant_QN, order_QN, axis=1)
    precision_QN = np.cumsum(hits_QN, axis=1) / np.arange(1, hits_QN.shape[1] + 1)
    found_Q = np.maximum(hits_QN.sum(axis=1), 1)
    return np.asarray((precision_QN * hits_QN).sum(axis=1) / found_Q)
