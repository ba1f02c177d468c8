"""The encoder that makes every stored code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spherequant import _native
from spherequant.errors import FormatError, InputError
from spherequant.quantizer import storage
from spherequant.quantizer.codebooks import (
    DEFAULT_BEAM,
    DEFAULT_ICM_ROUNDS,
    DEFAULT_ICM_STARTS,
    Codebooks,
)
from spherequant.quantizer.target import REACH, ClassTarget
from spherequant.quantizer.vectors import ByteArray, as_rows, thread_count

if TYPE_CHECKING:
    import os

    import numpy.typing as npt

MAX_BEAM = 4096
MAX_ICM_ROUNDS = 1000

_TARGET_ROWS = 1 << 16  # whose class targets are held at once


def check_effort(beam: int, icm_rounds: int, icm_starts: int) -> None:
    """Refuse settings of an encoder that are out of range.

    Raises:
        InputError: one of them is.
    """
    if not 1 <= beam <= MAX_BEAM:
        raise InputError(f"beam must be 1 to {MAX_BEAM}, not {beam}")
    if not 0 <= icm_rounds <= MAX_ICM_ROUNDS:
        raise InputError(f"icm_rounds must be 0 to {MAX_ICM_ROUNDS}, not {icm_rounds}")
    if not 1 <= icm_starts <= MAX_BEAM:
        raise InputError(f"icm_starts must be 1 to {MAX_BEAM}, not {icm_starts}")


class Encoder:
    """Codes for unit vectors: beam search over the codebooks, then iterated conditional modes.

    Iterated conditional modes (ICM; Besag, Journal of the Royal Statistical Society B 48, 1986) go
    to a local optimum, and not the best code of the beam leads to the best of these: several start.

    A code is a function of its row alone, to the bit: never of the other rows, the size of the
    batch, the number of threads or the instruction set. ``native/encode.h`` states every
    operation and its order.

    Args:
        codebooks: What to encode with.
        target: With one, rows are encoded towards their predicted class (``ClassTarget.target``);
            with None, as they are.
        beam: Partial codes kept after each codebook, 1 to 4096.
        icm_rounds: Most rounds of ICM, 0 to 1000; it stops by itself when nothing changes.
        icm_starts: Codes of the beam from which ICM goes on, the best first, 1 to 4096; more than
            the beam has are as many as it has. The best of the codes so reached is the row's.

    Raises:
        InputError: a setting out of range, or a target of another dimension.
    """

    def __init__(
        self,
        codebooks: Codebooks,
        target: ClassTarget | None = None,
        beam: int = DEFAULT_BEAM,
        icm_rounds: int = DEFAULT_ICM_ROUNDS,
        icm_starts: int = DEFAULT_ICM_STARTS,
    ) -> None:
        check_effort(beam, icm_rounds, icm_starts)
        if target is not None and target.dim != codebooks.dim:
            raise InputError(
                f"the class target has {target.dim} dimensions, the codebooks {codebooks.dim}"
            )
        self._codebooks = codebooks
        self._target = target
        self._beam = int(beam)
        self._icm_rounds = int(icm_rounds)
        self._icm_starts = int(icm_starts)
        self._tables: _native.EncodingTables | None = None

    @property
    def codebooks(self) -> Codebooks:
        """What it encodes with."""
        return self._codebooks

    @property
    def target(self) -> ClassTarget | None:
        """What it encodes towards, where that is not the row itself."""
        return self._target

    @property
    def beam(self) -> int:
        """Partial codes kept after each codebook."""
        return self._beam

    @property
    def icm_rounds(self) -> int:
        """Most rounds of ICM."""
        return self._icm_rounds

    @property
    def icm_starts(self) -> int:
        """Codes of the beam from which ICM goes on."""
        return self._icm_starts

    def encode(self, z_ND: npt.ArrayLike, threads: int | None = None) -> ByteArray:
        """Codes of the rows.

        Args:
            z_ND: [N, D], finite; unit rows, where they come from an embedding.
            threads: None for one for each CPU; the codes are the same with any number.

        Returns:
            uint8 [N, M].

        Raises:
            InputError: another D, or a row that is not finite.
        """
        rows_ND = as_rows(z_ND, self._codebooks.dim)
        count = thread_count(threads)
        if self._tables is None:
            # Made at the first use: (M K)^2 floats, which a reader of the codebooks may not need.
            self._tables = _native.EncodingTables(self._codebooks.array, count)
        tables, effort = self._tables, (self._beam, self._icm_rounds, self._icm_starts, count)
        if self._target is None:
            return tables.encode(rows_ND, *effort)
        codes_NM = np.empty((len(rows_ND), self._codebooks.n_codebooks), np.uint8)
        for start in range(0, len(rows_ND), _TARGET_ROWS):
            block = slice(start, start + _TARGET_ROWS)
            codes_NM[block] = tables.encode(self._target.target(rows_ND[block], count), *effort)
        return codes_NM

    def with_codebooks(self, codebooks: Codebooks) -> Encoder:
        """Return what encodes with other codebooks, of the same D, and all else as it is."""
        return Encoder(codebooks, self._target, self._beam, self._icm_rounds, self._icm_starts)

    def shortened(self, n_codebooks: int) -> Encoder:
        """Return what encodes with the first codebooks alone.

        Its codes are searched for anew, with the same effort: they are nearer than the first bytes
        of longer codes, whose codewords were chosen to go together, and often differ from them.

        Args:
            n_codebooks: how many to keep, 1 to M.

        Raises:
            InputError: fewer than one, or more than there are.
        """
        if not 1 <= n_codebooks <= self._codebooks.n_codebooks:
            raise InputError(
                f"of {self._codebooks.n_codebooks} codebooks, 1 to {self._codebooks.n_codebooks} "
                f"can be kept, not {n_codebooks}"
            )
        return self.with_codebooks(Codebooks(self._codebooks.array[:n_codebooks]))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write codebooks, settings and class target to one safetensors file."""
        tensors = self._codebooks.to_tensors()
        about: dict[str, Any] = {
            "beam": self._beam,
            "icm_rounds": self._icm_rounds,
            "icm_starts": self._icm_starts,
        }
        if self._target is not None:
            tensors["class_weight"] = self._target.weight_CD
            tensors["class_bias"] = self._target.bias_C
            tensors["class_centres"] = self._target.centres_CD
            about["pull"] = float(self._target.pull)
            about["sharpness"] = float(self._target.sharpness)
            about["levelling"] = float(self._target.levelling)
            about["reach"] = float(self._target.reach)
            about["multi_label"] = bool(self._target.multi_label)
            if self._target.multi_label:
                about["centre"] = "expected"
        storage.write(path, tensors, about)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Encoder:
        """Read what :meth:`save` or ``Codebooks.save`` wrote.

        Raises:
            FormatError: missing, damaged, or newer than this version reads.
        """
        tensors, about = storage.read(path)
        codebooks = Codebooks.from_tensors(path, tensors)
        try:
            target = None
            if "class_weight" in tensors:
                if about["multi_label"] and about.get("centre") != "expected":
                    raise FormatError(
                        f"{path} pulls images of several labels towards the labels predicted, as "
                        "no version since 0.1.0 does: train the model again"
                    )
                target = ClassTarget(
                    tensors["class_weight"],
                    tensors["class_bias"],
                    tensors["class_centres"],
                    pull=float(about["pull"]),
                    multi_label=bool(about["multi_label"]),
                    sharpness=float(about["sharpness"]),
                    levelling=float(about.get("levelling", 0.0)),
                    reach=float(about.get("reach", REACH)),
                )
            return cls(
                codebooks,
                target,
                int(about["beam"]),
                int(about["icm_rounds"]),
                int(about.get("icm_starts", 1)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path} is damaged: {error!r}") from error

    def __reduce__(self) -> tuple[type[Encoder], tuple[Any, ...]]:
        return Encoder, (
            self._codebooks,
            self._target,
            self._beam,
            self._icm_rounds,
            self._icm_starts,
        )

    def __repr__(self) -> str:
        return (
            f"Encoder({self._codebooks!r}, classes="
            f"{0 if self._target is None else self._target.n_classes}, "
            f"beam={self._beam}, icm_rounds={self._icm_rounds}, icm_starts={self._icm_starts})"
        )
