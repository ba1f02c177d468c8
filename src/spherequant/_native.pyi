# Kernels of spherequant. Call them through spherequant.quantizer.
from typing import Self

import numpy as np
import numpy.typing as npt

def inner_products(
    x_ND: npt.NDArray[np.float32], y_KD: npt.NDArray[np.float32], threads: int
) -> npt.NDArray[np.float32]: ...

class EncodingTables:
    def __new__(cls, codebooks_MKD: npt.NDArray[np.float32], threads: int) -> Self: ...
    def encode(
        self, x_ND: npt.NDArray[np.float32], beam: int, icm_rounds: int, threads: int
    ) -> npt.NDArray[np.uint8]: ...
