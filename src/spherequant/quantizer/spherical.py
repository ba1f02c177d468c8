"""A spherical additive quantizer of vectors that one already has, as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_array, check_random_state

from spherequant.errors import InputError, LabelError
from spherequant.quantizer.encoder import Encoder
from spherequant.quantizer.vectors import ByteArray, FloatArray, normalise_rows

if TYPE_CHECKING:
    from spherequant.quantizer.codebooks import Codebooks


_BLOCK_ROWS = 16_384  # blended with their centres at once

# The centre of each of some rows.
CentresOf = Callable[[slice], npt.NDArray[np.float64]]


class SphericalQuantizer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed: both are Any
    """Unit vectors to M bytes: the sum of one codeword from each of M codebooks.

    Rows are divided by their L2 norm first. With labels, the codebooks are learned on
    ``u = (z + w φ) / (1 + w)``, φ the normalised mean of the item's class and w = λ3 / λ1
    (Eghbali and Tahvildari, "Deep Spherical Quantization for Image Search", CVPR 2019, with the
    two quantization terms of the objective written as one). Without, they are learned on z.
    Encoding knows no label either way: it encodes z.

    Args:
        n_codebooks: M, 1 to 16; a code has M bytes.
        n_codewords: K, 1 to 256; may exceed the number of rows.
        sparsity: The most nonzeros of all codebooks together: a count, ``"S1"`` = K D, ``"S2"`` =
            min(K D + D², M K D), or None for dense codebooks. Fewer make the table of a query
            quicker and the error larger.
        random_state: None, an integer or a NumPy RandomState, as scikit-learn has it.

    Attributes:
        codebooks_: ``Codebooks``, what was learned.
        n_features_in_: D.
    """

    # w = λ3 / λ1: the vector and its class centre weigh the same. A larger weight ranks better on
    # the classes that were trained; what it costs on others is not known.
    class_pull: ClassVar[float] = 1.0

    def __init__(
        self,
        n_codebooks: int = 4,
        n_codewords: int = 256,
        *,
        sparsity: int | str | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_codebooks = n_codebooks
        self.n_codewords = n_codewords
        self.sparsity = sparsity
        self.random_state = random_state

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike | None = None) -> Self:
        """Learn the codebooks.

        Args:
            X: [N, D], N >= 1, no row zero or with NaN.
            y: None; class labels [N] or [N, 1] of any type; or multi-hot labels [N, C] of 0 and
                1, where a row of zeros has no label and stays where it is.

        Returns:
            The estimator itself.

        Raises:
            InputError: rows that cannot be normalised, or M, K or the sparsity out of range.
            LabelError: labels that do not match the rows.
        """
        # Imported here: encoding and decoding do without torch.
        from spherequant.quantizer.learning import learn_codebooks

        z_ND = normalise_rows(_checked(X), what="X")
        u_ND = z_ND if y is None else _blended(z_ND, _centres(z_ND, y), self.class_pull)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        self.codebooks_: Codebooks = learn_codebooks(
            u_ND, self.n_codebooks, self.n_codewords, seed=seed, sparsity=self.sparsity
        )
        self.n_features_in_: int = z_ND.shape[1]
        self._encoder = Encoder(self.codebooks_)  # it keeps the tables that it makes
        return self

    def encode(self, X: npt.ArrayLike) -> ByteArray:
        """Codes of the normalised rows.

        Args:
            X: [N, D], no row zero or with NaN.

        Returns:
            uint8 [N, M]; each row's code depends on that row alone.

        Raises:
            NotFittedError: before ``fit``.
            InputError: another D, or rows that cannot be normalised.
        """
        codebooks = self._learned()
        rows_ND = _checked(X)
        if rows_ND.shape[1] != codebooks.dim:
            raise InputError(
                f"X has {rows_ND.shape[1]} features, but SphericalQuantizer is expecting "
                f"{codebooks.dim} features as input"
            )
        encoder: Encoder | None = getattr(self, "_encoder", None)
        if encoder is None or encoder.codebooks is not codebooks:  # given by hand
            encoder = Encoder(codebooks)
        return encoder.encode(normalise_rows(rows_ND, what="X"))

    def decode(self, codes: npt.ArrayLike) -> FloatArray:
        """Reconstructions.

        Args:
            codes: integers [N, M], each below K.

        Returns:
            float32 [N, D]; near the unit sphere, not on it.

        Raises:
            NotFittedError: before ``fit``.
            InputError: codes of another shape, or beyond the codewords.
        """
        return self._learned().decode(codes)

    def transform(self, X: npt.ArrayLike) -> ByteArray:
        """Return ``encode(X)``, under the name that a pipeline calls."""
        return self.encode(X)

    def inverse_transform(self, X: npt.ArrayLike) -> FloatArray:
        """Return ``decode(X)`` of codes, under the name that a pipeline calls."""
        return self.decode(X)

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn is told: codes are bytes, whatever the type of the rows."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _learned(self) -> Codebooks:
        codebooks: Codebooks | None = getattr(self, "codebooks_", None)
        if codebooks is None:
            raise NotFittedError("This SphericalQuantizer is not fitted yet: call fit first.")
        return codebooks


def _checked(X: npt.ArrayLike) -> npt.NDArray[Any]:
    """X as a matrix of at least one row, checked with scikit-learn's own messages."""
    # Finiteness is left to normalise_rows, which names the row.
    with config_context(assume_finite=True):
        try:
            rows: npt.NDArray[Any] = check_array(X, dtype="numeric")
        except ValueError as error:
            raise InputError(str(error)) from error
    return rows


def _centres(z_ND: FloatArray, y: npt.ArrayLike) -> CentresOf:
    """φ of the labels of some rows: float64 [B, D], zero where there is none or no direction."""
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim not in (1, 2) or len(labels) != len(z_ND):
        raise LabelError(
            f"y must be [N] or [N, C] for {len(z_ND)} rows of X, not {list(labels.shape)}"
        )
    if labels.ndim == 1:
        return _centres_of_classes(z_ND, labels)
    if labels.dtype.kind not in "biuf" or not np.isin(labels, (0, 1)).all():
        raise LabelError("y of two dimensions must be multi-hot: 0 and 1 only")
    carried_NC = labels.astype(np.bool_)
    sums_CD = np.zeros((carried_NC.shape[1], z_ND.shape[1]))
    for c, rows_N in enumerate(carried_NC.T):
        sums_CD[c] = z_ND[rows_N].sum(axis=0, dtype=np.float64)
    centres_CD = _directions(sums_CD)
    return lambda rows: _directions(carried_NC[rows].astype(np.float64) @ centres_CD)


def _centres_of_classes(z_ND: FloatArray, labels: npt.NDArray[Any]) -> CentresOf:
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise LabelError("y holds a NaN or an infinite value")
    try:
        classes, class_N = np.unique(labels, return_inverse=True)
    except TypeError as error:
        raise LabelError(f"labels of one type are wanted in y: {error}") from error
    # Rows of a class after each other: as many classes as rows take no more memory.
    order_N = np.argsort(class_N, kind="stable")
    starts_C = np.searchsorted(class_N[order_N], np.arange(len(classes)))
    sums_CD = np.add.reduceat(z_ND[order_N], starts_C, axis=0, dtype=np.float64)
    centres_CD = _directions(sums_CD)
    return lambda rows: centres_CD[class_N[rows]]


def _blended(z_ND: FloatArray, centres_of: CentresOf, pull: float) -> FloatArray:
    """``(z + pull φ) / (1 + pull)``; rows whose centre has no direction stay as they are."""
    blended_ND = np.empty_like(z_ND)
    for start in range(0, len(z_ND), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        centres_BD = centres_of(rows)
        has_centre_B1 = centres_BD.any(axis=1, keepdims=True)
        z_BD = z_ND[rows]
        blended_ND[rows] = np.where(has_centre_B1, (z_BD + pull * centres_BD) / (1 + pull), z_BD)
    return blended_ND


def _directions(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rows divided by their norm; zero (to rounding) stays zero."""
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(norm > 1e-6, rows / np.maximum(norm, 1e-6), 0.0)
