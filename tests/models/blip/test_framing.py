"""What the roles feed a network: framed texts."""

from pathlib import Path

import pytest
import torch

from models.blip import framing
from models.blip.tokenizer import WordPiece

CPU = torch.device("cpu")


def test_texts_are_framed_cut_and_padded(words: WordPiece) -> None:
    found = framing.tokenize_batch([[7, 8], [], [7] * 9], words, 5, 6, CPU)
    end, pad = words.sep_id, words.pad_id
    assert found.ids.tolist() == [
        [5, 7, 8, end, pad, pad],
        [5, end, pad, pad, pad, pad],
        [5, 7, 7, 7, 7, end],
    ]
    assert found.mask.sum(1).tolist() == [4, 2, 6]
    assert (found.ids[~found.mask] == pad).all()
    none = framing.tokenize_batch([], words, 5, 6, CPU)
    assert none.ids.shape == none.mask.shape == (0, framing.FRAME)


@pytest.mark.parametrize("limit", [1, 0, -3, 11])
def test_limits_that_do_not_fit(limit: int, tmp_path: Path) -> None:
    framing.check_max_tokens(2, 10, "x")
    framing.check_max_tokens(10, 10, "x")
    with pytest.raises(ValueError, match=f"max_tokens is {limit}; .* takes 2 to 10"):
        framing.check_max_tokens(limit, 10, str(tmp_path))
