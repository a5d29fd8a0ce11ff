"""Evaluate retrieval: how often is what belongs together found, by ITC and by ITM?"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.blip.framing import TokenBatch
from models.blip.tokenizer import normalise
from models.roles.retrieval import TEXTS_AT_ONCE, EncodedImages, EncodedTexts, Ranked, Retriever
from pipeline.evaluate import metrics
from pipeline.evaluate.pairs import USUAL, EvaluateConfig, LabelledPair, batches
from pipeline.evaluate.spool import StateSpool
from shards.reasons import TextReason
from shards.training.left_out import LeftOut

Both = tuple[NDArray[np.float32], NDArray[np.float32]]


def open_retriever(folder: str | Path, config: EvaluateConfig = USUAL) -> Retriever:
    """Load a filter folder, or the match network that is part of a pre-training folder."""
    return Retriever.load(
        folder, max_tokens=config.max_tokens, dtype=config.dtype, device=config.device
    )


def measure_retrieval(
    retriever: Retriever,
    pairs: Iterable[LabelledPair],
    batch_size: int = 32,
    *,
    k: int = 256,
    ranked: Ranked | None = None,
) -> dict[str, Any]:
    """Compute recall both ways, by ITC alone (`itc`) and with the best k put in order by ITM.

    Texts that are equal to the model belong to every image that carries one of them. `itm` is the
    original's score, the logit of a match plus the cosine.
    """
    left_out = LeftOut()
    numbers: dict[str, int] = {}  # of each text, as the model reads it
    texts_of: list[set[int]] = []
    with_text = (
        pair if pair.texts else replace(pair, reason=pair.reason or TextReason.MISSING)
        for pair in pairs
    )
    with StateSpool() as spool:
        for batch, pictures in batches(with_text, retriever.preprocess, batch_size, left_out):
            spool.add(retriever.encode_images(pictures))
            for pair in batch:
                read = map(normalise, pair.texts)
                texts_of.append({numbers.setdefault(text, len(numbers)) for text in read})
        itc, itm = scores(retriever, spool.whole(), list(numbers), k, ranked)
    return {
        "images": len(texts_of),
        "texts": len(numbers),
        "left_out": left_out,
        "k": k,
        "itc": metrics.retrieval(*itc, texts_of),
        "itm": metrics.retrieval(*itm, texts_of),
    }


def scores(
    retriever: Retriever,
    images: EncodedImages | None,
    texts: Sequence[str],
    k: int,
    ranked: Ranked | None = None,
) -> tuple[Both, Both]:
    """Score images (B) with texts (N) by ITC, then the best k by ITM.

    Each is (B, N) and (N, B).
    """
    if images is None:
        return (metrics.NOTHING, metrics.NOTHING), (metrics.NOTHING, metrics.NOTHING)
    ranking = retriever.rank(images, _read_texts(retriever, texts), k, ranked=ranked)
    cosines = ranking.cosines.cpu().numpy()
    itm = ranking.to_text.cpu().numpy(), ranking.to_image.cpu().numpy()
    return (cosines, cosines.T), itm


def _read_texts(retriever: Retriever, texts: Sequence[str]) -> EncodedTexts:
    """Read many texts, some at a time, and put them under one length."""
    parts = [
        retriever.encode_texts(texts[start : start + TEXTS_AT_ONCE])
        for start in range(0, len(texts), TEXTS_AT_ONCE)
    ]
    longest = max(part.framed.ids.shape[1] for part in parts)

    def widen(rows: Tensor) -> Tensor:  # what stands under the mask means nothing
        return functional.pad(rows, (0, longest - rows.shape[1]))

    ids = torch.cat([widen(part.framed.ids) for part in parts])
    mask = torch.cat([widen(part.framed.mask) for part in parts])
    return EncodedTexts(TokenBatch(ids, mask), torch.cat([part.unit for part in parts]))
