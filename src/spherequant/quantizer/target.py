"""What a vector is encoded towards: itself, pulled to the centre of its predicted class."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from spherequant.errors import InputError
from spherequant.quantizer.vectors import (
    BoolArray,
    FloatArray,
    as_rows,
    inner_products,
    normalise_rows,
    read_only,
)

# A label is predicted when its probability exceeds half of the best label's. A training finds a
# better value by images that it holds back.
REACH = math.log(2)
# Probabilities as they are; a training finds a better value by images that it holds back.
SHARPNESS = 1.0
# Probabilities are taken in float64 and rounded to this step: the last bit of a processor's own
# exponential then hardly ever reaches one, and a flat prediction over thousands of classes keeps
# its mass.
_STEPS = 1 << 20
_BLOCK_ROWS = 1024  # whose probabilities are held at once, four numbers a class


@dataclass(frozen=True, slots=True, eq=False)
class ClassTarget:
    """The classifier of the embedding, and the class centres its predictions point to.

    A new item has no given label, so its code may use the class that the network predicts, a
    function of z. With ``w = λ3 / λ1`` the two quantization terms of the objective are one
    distance to ``u = (z + w φ) / (1 + w)``; here φ is the centre that is expected under the
    predicted probabilities, and w is ``pull``. Where the classifier is sure that is the centre of
    one class; where it is not, it is shorter, and the item ranks below those that are sure. (Of
    several labels an item, φ has length one.)

    That order is a gain for queries of the trained classes and a loss for all others: images of
    a class that was never trained look unsure. ``levelling`` is the balance between the two: the
    target is divided by its length to this power.

    All arithmetic is in one order, each row on its own; in float32, but for the probabilities.

    Attributes:
        weight_CD: float32 [C, D], classifier weights, the scale of the softmax included.
        bias_C: float32 [C].
        centres_CD: float32 [C, D], unit rows where embeddings are.
        pull: w >= 0; with 0 the target is z itself.
        multi_label: Whether an item may have several labels.
        sharpness: What logits are multiplied with before the softmax of the expected centre.
        levelling: 0 leaves a target its length, 1 puts every one on the unit sphere.
        reach: How far below the best logit a label of several is still predicted; no code depends
            on it.

    Raises:
        InputError: shapes that do not agree, C = 0, values that are not finite, a centre of zero, a
            negative pull, a levelling outside 0 to 1, a reach below zero.
    """

    weight_CD: FloatArray
    bias_C: FloatArray
    centres_CD: FloatArray
    pull: float
    multi_label: bool
    sharpness: float = SHARPNESS
    levelling: float = 0.0
    reach: float = REACH

    def __post_init__(self) -> None:
        if len(self.weight_CD) == 0:
            raise InputError("a class target needs at least one class")
        weight = as_rows(self.weight_CD, what="classifier weights")
        centres = as_rows(self.centres_CD, weight.shape[1], what="class centres")
        bias = as_rows(np.reshape(self.bias_C, (1, -1)), len(weight), what="classifier biases")[0]
        if len(centres) != len(weight):
            raise InputError(
                f"a class target needs a centre for each class: there are {len(weight)} weights "
                f"and {len(centres)} centres"
            )
        if not 0 < self.sharpness < math.inf:
            raise InputError(f"sharpness must be a number above 0, not {self.sharpness}")
        if not 0 <= self.pull < math.inf:
            raise InputError(f"pull must be a number of at least 0, not {self.pull}")
        if not 0 <= self.reach < math.inf:
            raise InputError(f"reach must be a number of at least 0, not {self.reach}")
        if not 0 <= self.levelling <= 1:
            raise InputError(f"levelling must lie in [0, 1], not {self.levelling}")
        if not centres.any(axis=1).all():
            raise InputError(
                f"the centre of class {int(np.argmin(centres.any(axis=1)))} is zero: a class "
                "without images has none, leave it out"
            )
        for name, array in (("weight_CD", weight), ("bias_C", bias), ("centres_CD", centres)):
            object.__setattr__(self, name, read_only(array.copy()))

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.weight_CD)

    @property
    def dim(self) -> int:
        """D."""
        return int(self.weight_CD.shape[1])

    def logits(self, z_ND: FloatArray, threads: int | None = None) -> FloatArray:
        """``<z, W_c> + b_c``: float32 [N, C].

        Args:
            z_ND: float32 [N, D].
            threads: None for one for each CPU; the result is the same with any number.
        """
        z_ND = as_rows(z_ND, self.dim)
        logits_NC: FloatArray = inner_products(z_ND, self.weight_CD, threads)
        return logits_NC + self.bias_C

    def predict(self, z_ND: FloatArray) -> BoolArray:
        """Predicted labels from the logits.

        Single label: the class of the largest logit, the lowest of equal ones. Multi-label: the
        best one, and every label whose logit lies less than ``reach`` below it; with log 2, whose
        probability is above half of the best one's. (Below the best one's and not below 1: softmax
        spreads its mass over an image's labels.)

        Args:
            z_ND: float32 [N, D].

        Returns:
            bool [N, C], at least one true in each row.
        """
        logits_NC = self.logits(z_ND)
        best_N = logits_NC.argmax(axis=1)
        if self.multi_label:
            below_NC = logits_NC.max(axis=1, keepdims=True) - logits_NC
            predicted_NC: BoolArray = below_NC < np.float32(self.reach)
        else:
            predicted_NC = np.zeros(logits_NC.shape, dtype=np.bool_)
        predicted_NC[np.arange(len(best_N)), best_N] = True
        return predicted_NC

    def centre(self, z_ND: FloatArray, threads: int | None = None) -> FloatArray:
        """The centre that the predictions point to.

        The centre expected under the probabilities, ``Σ_c p_c φ_c``, at most of length one.
        Multi-label: that sum is short wherever labels are several, however sure each is, so it is
        divided by its length, as the mean of given labels' centres is. Centres that cancel each
        other to zero have no direction, and that of the best label then stands alone.

        Args:
            z_ND: float32 [N, D].
            threads: As for ``logits``.

        Returns:
            float32 [N, D].
        """
        z_ND = as_rows(z_ND, self.dim)
        centre_ND = np.empty_like(z_ND)
        for start in range(0, len(z_ND), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            centre_ND[block] = self._block_centre(z_ND[block], threads)
        return centre_ND

    def _block_centre(self, z_ND: FloatArray, threads: int | None) -> FloatArray:
        logits_NC = self.logits(z_ND, threads)
        best_N = logits_NC.argmax(axis=1)
        logits_NC -= logits_NC.max(axis=1, keepdims=True)
        mass_NC = np.exp(self.sharpness * logits_NC.astype(np.float64))
        total_N1 = np.zeros((len(z_ND), 1))
        for c in range(self.n_classes):  # in this order for each row
            total_N1 += mass_NC[:, c : c + 1]
        p_NC = (np.rint(_STEPS * mass_NC / total_N1) / _STEPS).astype(np.float32)
        centres_DC = np.ascontiguousarray(self.centres_CD.T)
        expected_ND: FloatArray = inner_products(p_NC, centres_DC, threads)
        if not self.multi_label:
            return expected_ND
        pointing_N1 = expected_ND.any(axis=1, keepdims=True)
        return normalise_rows(np.where(pointing_N1, expected_ND, self.centres_CD[best_N]))

    def target(self, z_ND: FloatArray, threads: int | None = None) -> FloatArray:
        """What z is encoded towards: ``u / ‖u‖^levelling``, u the blend of z and its centre.

        ``u = (z + pull * centre(z)) / (1 + pull)``.

        Args:
            z_ND: float32 [N, D].
            threads: As for ``logits``.

        Returns:
            float32 [N, D]; not unit rows.
        """
        z_ND = as_rows(z_ND, self.dim)
        if self.pull == 0:
            return z_ND
        pull = np.float32(self.pull)
        sum_ND = z_ND + pull * self.centre(z_ND, threads)
        u_ND: FloatArray = np.divide(sum_ND, np.float32(1) + pull, dtype=np.float32)
        if self.levelling == 0:
            return u_ND
        # A sum of squares in one order; z and a centre that cancel to zero stay there.
        square_N = np.zeros(len(u_ND))
        for d in range(self.dim):
            square_N += np.square(u_ND[:, d], dtype=np.float64)
        square_N[square_N == 0] = 1
        length_N = np.power(square_N, self.levelling / 2).astype(np.float32)
        return u_ND / length_N[:, None]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClassTarget):
            return NotImplemented
        return (
            self.pull == other.pull
            and self.sharpness == other.sharpness
            and self.levelling == other.levelling
            and self.reach == other.reach
            and self.multi_label == other.multi_label
            and np.array_equal(self.weight_CD, other.weight_CD)
            and np.array_equal(self.bias_C, other.bias_C)
            and np.array_equal(self.centres_CD, other.centres_CD)
        )

    __hash__ = None  # type: ignore[assignment]  # mypy's own idiom for "equal but not hashable"
