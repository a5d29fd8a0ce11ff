"""Attention gives the same mixture by whichever kernel it runs."""

import pytest
import torch
from torch import Tensor

from models.blip.sdpa import FEW_QUERIES, attend


def slowly(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attend one query at a time, in double precision."""
    query, key, value = (part.double() for part in (query, key, value))
    mixed = torch.empty_like(query)
    for row, head, place in torch.cartesian_prod(*map(torch.arange, query.shape[:3])).tolist():
        seen = torch.ones(key.shape[2], dtype=torch.bool)
        if mask is not None:
            seen = mask.expand(query.shape[0], 1, query.shape[2], -1)[row, 0, place]
        scores = key[row, head, seen] @ query[row, head, place] / query.shape[-1] ** 0.5
        mixed[row, head, place] = scores.softmax(0) @ value[row, head, seen]
    return mixed


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-6), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("queries", [1, 5, FEW_QUERIES, FEW_QUERIES + 1])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_the_textbook_one(
    dtype: torch.dtype, close: float, queries: int, masked: bool
) -> None:
    torch.manual_seed(queries)
    query = torch.randn(2, 3, queries, 16).to(dtype)
    key, value = (torch.randn(2, 3, 40, 16).to(dtype) for _ in range(2))
    mask = None
    if masked:
        mask = torch.rand(2, 1, queries, 40) < 0.5
        mask[..., 0] = True
    found = attend(query, key, value, mask)
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.double(), slowly(query, key, value, mask), atol=close, rtol=close
    )
