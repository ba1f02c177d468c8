# Kernels of spherequant, behind its quantizer, its index and its evaluation.
from collections.abc import Sequence
from typing import Self, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

class Columns:
    def __new__(cls, y_KD: npt.NDArray[np.float32]) -> Self: ...
    def inner_products(
        self, x_ND: npt.NDArray[np.float32], threads: int, level: str = ""
    ) -> npt.NDArray[np.float32]: ...

class SparseColumns:
    def __new__(cls, y_KD: npt.NDArray[np.float32]) -> Self: ...
    # None where leaving out the zeros would not give the same bits.
    def inner_products(
        self, x_ND: npt.NDArray[np.float32], threads: int, level: str = ""
    ) -> npt.NDArray[np.float32] | None: ...

def encoding_levels() -> list[str]: ...

class EncodingTables:
    def __new__(
        cls, codebooks_MKD: npt.NDArray[np.float32], threads: int, level: str = ""
    ) -> Self: ...
    def encode(
        self,
        x_ND: npt.NDArray[np.float32],
        beam: int,
        icm_rounds: int,
        icm_starts: int,
        threads: int,
    ) -> npt.NDArray[np.uint8]: ...

_Numbers: TypeAlias = npt.NDArray[np.uint32]

class Layout:
    def __len__(self) -> int: ...
    @property
    def bucketed(self) -> bool: ...
    @property
    def books(self) -> tuple[int, int] | None: ...
    @property
    def memory_bytes(self) -> int: ...
    # Blocks uint8, order uint32, starts uint32: read-only views.
    def arrays(self) -> tuple[npt.NDArray[np.uint8], _Numbers, _Numbers]: ...
    def codes(self) -> npt.NDArray[np.uint8]: ...
    def to_slots(self, positions: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]: ...
    def subset(self, slots: npt.NDArray[np.uint64]) -> Layout: ...

class LayoutBuilder:
    def __new__(
        cls, n: int, numbers_MK: npt.NDArray[np.uint8], first: int, second: int
    ) -> Self: ...
    def count(self, codes_NM: npt.NDArray[np.uint8]) -> None: ...
    def place(self, codes_NM: npt.NDArray[np.uint8], threads: int) -> None: ...
    def finish(self) -> Layout: ...

class LayoutImage:
    def __new__(
        cls, n: int, numbers_MK: npt.NDArray[np.uint8], first: int, second: int
    ) -> Self: ...
    # The same arrays, to be written to until they are finished.
    def arrays(self) -> tuple[npt.NDArray[np.uint8], _Numbers, _Numbers]: ...
    def finish(self, threads: int) -> Layout: ...

def sum_tables(
    tables_QMK: npt.NDArray[np.float32], codes_NM: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]: ...

_Counts: TypeAlias = npt.NDArray[np.int64]
_Scores = TypeVar("_Scores", npt.NDArray[np.float32], npt.NDArray[np.float64])

# Both increasing. Before, size, relevant and relevant_before of each tie; whether any are tied.
def find_ties(
    scores: _Scores, relevant: _Scores
) -> tuple[_Counts, _Counts, _Counts, _Counts, bool]: ...
def levels() -> list[str]: ...
def number_codewords(
    codebooks_MKD: npt.NDArray[np.float32], threads: int
) -> npt.NDArray[np.uint8]: ...
def search(
    layouts: Sequence[Layout],
    ids: Sequence[npt.NDArray[np.int64] | None],
    allowed: Sequence[npt.NDArray[np.uint64] | None],
    lut_QMK: npt.NDArray[np.float32],
    exclude: npt.NDArray[np.int64] | None,
    k: int,
    min_score: float,
    threads: int,
    route: str,
    level: str,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.uint64]]: ...
