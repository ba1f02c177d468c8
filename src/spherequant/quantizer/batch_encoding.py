"""The encoder's algorithm on batches in torch, for training on a GPU.

It makes no stored codes. Its sums run in another order than those of the canonical ``Encoder``,
so that near-ties may fall to another codeword; tests measure how rarely.
"""

from __future__ import annotations

import torch

from spherequant.errors import InputError
from spherequant.quantizer.codebooks import (
    DEFAULT_BEAM,
    DEFAULT_ICM_ROUNDS,
    DEFAULT_ICM_STARTS,
    Codebooks,
)
from spherequant.quantizer.encoder import check_effort
from spherequant.quantizer.least_squares import as_tensor

# Costs held at once: 64 Mi float32, 256 MiB, and a few times that for the largest temporaries.
_MAX_COSTS = 1 << 26


def encode_batch(
    u_ND: torch.Tensor,
    codebooks: Codebooks,
    beam: int = DEFAULT_BEAM,
    icm_rounds: int = DEFAULT_ICM_ROUNDS,
    icm_starts: int = DEFAULT_ICM_STARTS,
) -> torch.Tensor:
    """Codes of the rows: beam search, then ICM, as ``native/encode.h`` describes them.

    Args:
        u_ND: [N, D], on a device with float64 (CPU, CUDA).
        codebooks: What to encode with.
        beam: Partial codes kept after each codebook.
        icm_rounds: Most rounds of ICM.
        icm_starts: Codes of the beam from which it goes on.

    Returns:
        uint8 [N, M], on the device of ``u_ND``.

    Raises:
        InputError: another D, or a setting out of the encoder's range.
    """
    check_effort(beam, icm_rounds, icm_starts)
    if u_ND.ndim != 2 or u_ND.shape[1] != codebooks.dim:
        raise InputError(f"vectors must be [N, {codebooks.dim}], not {list(u_ND.shape)}")
    m, k = codebooks.n_codebooks, codebooks.n_codewords
    # Inner products in float64: neither autocast nor TF32 touches them.
    flat_MKxD = as_tensor(codebooks.array, torch.float64, u_ND.device).reshape(m * k, -1)
    gram = flat_MKxD @ flat_MKxD.T
    pair_MKxMxK = (2 * gram).float().reshape(m * k, m, k)
    norm_MK = gram.diagonal().reshape(m, k)
    rows = max(1, _MAX_COSTS // (k * max(beam, 2 * m)))
    codes = []
    for start in range(0, len(u_ND), rows):
        u_BD = u_ND[start : start + rows].detach()
        inner_BMK = (u_BD.double() @ flat_MKxD.T).reshape(-1, m, k)
        unary_BMK = (norm_MK - 2 * inner_BMK).float()
        codes_BLM = _beam_search(unary_BMK, pair_MKxMxK, beam)
        starts = codes_BLM[:, : icm_starts if icm_rounds else 1].unbind(1)
        reached = [_icm(unary_BMK, pair_MKxMxK, start_BM, icm_rounds) for start_BM in starts]
        codes.append(_cheapest(unary_BMK, pair_MKxMxK, reached).to(torch.uint8))
    return torch.cat(codes) if codes else u_ND.new_zeros((0, m), dtype=torch.uint8)


def _beam_search(unary_BMK: torch.Tensor, pair_MKxMxK: torch.Tensor, beam: int) -> torch.Tensor:
    """The whole codes of the beam, by ascending cost: int64 [B, L, M]."""
    b, n_codebooks, k = unary_BMK.shape
    codes_BLm = torch.zeros(b, 1, 0, dtype=torch.int64, device=unary_BMK.device)
    cost_BL = torch.zeros(b, 1, device=unary_BMK.device)
    for m in range(n_codebooks):
        codes_BLm, cost_BL = extend_beam(
            codes_BLm, cost_BL, unary_BMK[:, m], pair_MKxMxK[: m * k, m], beam
        )
    return codes_BLm


def extend_beam(
    codes_BLm: torch.Tensor,
    cost_BL: torch.Tensor,
    unary_BK: torch.Tensor,
    pair_mKxK: torch.Tensor,
    beam: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the partial codes of a beam a codeword more, and keep the best.

    Args:
        codes_BLm: int64, the first m codewords of L codes of each row.
        cost_BL: their squared errors less the row's own squared length.
        unary_BK: what each codeword of the next codebook costs by itself.
        pair_mKxK: what it costs beside each codeword of the first m codebooks.
        beam: most codes of a row that are kept.

    Returns:
        int64 [B, L', m + 1] by ascending cost, as in the canonical encoder, and their costs.
    """
    m, k = codes_BLm.shape[2], unary_BK.shape[1]
    step_BLK = unary_BK[:, None, :].expand(-1, codes_BLm.shape[1], -1).clone()
    for j in range(m):
        step_BLK += pair_mKxK[j * k + codes_BLm[:, :, j]]
    step_BLK += cost_BL[:, :, None]
    kept = min(beam, codes_BLm.shape[1] * k)
    cost_BL, flat_BL = step_BLK.flatten(1).topk(kept, dim=1, largest=False, sorted=True)
    from_BL, word_BL = flat_BL // k, flat_BL % k
    former_BLm = codes_BLm.gather(1, from_BL[:, :, None].expand(-1, -1, m))
    return torch.cat([former_BLm, word_BL[:, :, None]], dim=2), cost_BL


def _icm(
    unary_BMK: torch.Tensor, pair_MKxMxK: torch.Tensor, codes_BM: torch.Tensor, rounds: int
) -> torch.Tensor:
    """Each codebook in turn: its best codeword given the others, if strictly better."""
    n_codebooks, k = unary_BMK.shape[1:]
    codes_BM = codes_BM.clone()
    for _ in range(rounds):
        before_BM = codes_BM.clone()
        for m in range(n_codebooks):
            cost_BK = unary_BMK[:, m].clone()
            for j in range(n_codebooks):
                if j != m:
                    cost_BK += pair_MKxMxK[:, m][j * k + codes_BM[:, j]]
            least_B, best_B = cost_BK.min(dim=1)
            old_B = cost_BK.gather(1, codes_BM[:, m, None])[:, 0]
            codes_BM[:, m] = torch.where(least_B < old_B, best_B, codes_BM[:, m])
        if torch.equal(before_BM, codes_BM):
            break
    return codes_BM


def _cheapest(
    unary_BMK: torch.Tensor, pair_MKxMxK: torch.Tensor, codes_SBM: list[torch.Tensor]
) -> torch.Tensor:
    """Of each row's codes that of least cost, the first of equal ones: int64 [B, M]."""
    best_BM = codes_SBM[0]
    if len(codes_SBM) == 1:
        return best_BM
    least_B = _cost(unary_BMK, pair_MKxMxK, best_BM)
    for codes_BM in codes_SBM[1:]:
        cost_B = _cost(unary_BMK, pair_MKxMxK, codes_BM)
        best_BM = torch.where((cost_B < least_B)[:, None], codes_BM, best_BM)
        least_B = torch.minimum(cost_B, least_B)
    return best_BM


def _cost(
    unary_BMK: torch.Tensor, pair_MKxMxK: torch.Tensor, codes_BM: torch.Tensor
) -> torch.Tensor:
    """Squared errors less the rows' own squared lengths: [B]."""
    n_codebooks, k = unary_BMK.shape[1:]
    cost_B = torch.zeros(len(codes_BM), device=unary_BMK.device)
    for m in range(n_codebooks):
        step_B = unary_BMK[:, m].gather(1, codes_BM[:, m, None])[:, 0]
        for j in range(m):
            step_B = step_B + pair_MKxMxK[j * k + codes_BM[:, j], m, codes_BM[:, m]]
        cost_B = cost_B + step_B
    return cost_B
