# Kernels of spherequant, behind spherequant.quantizer and spherequant.index.
from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

def inner_products(
    x_ND: npt.NDArray[np.float32],
    y_KD: npt.NDArray[np.float32],
    threads: int,
    level: str = "",
) -> npt.NDArray[np.float32]: ...
def encoding_levels() -> list[str]: ...

class EncodingTables:
    def __new__(
        cls, codebooks_MKD: npt.NDArray[np.float32], threads: int, level: str = ""
    ) -> Self: ...
    def encode(
        self, x_ND: npt.NDArray[np.float32], beam: int, icm_rounds: int, threads: int
    ) -> npt.NDArray[np.uint8]: ...

class Layout:
    def __len__(self) -> int: ...
    @property
    def bucketed(self) -> bool: ...
    @property
    def memory_bytes(self) -> int: ...
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
