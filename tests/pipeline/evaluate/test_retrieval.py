"""Retrieval: the recalls are those of the model's scores, one pair at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.blip.networks import MatchNetwork
from models.checkpoints import checkpoint
from models.checkpoints.folder import CheckpointContent, write
from models.roles.filter import Filter
from models.roles.retrieval import Retriever
from pipeline.evaluate import LabelledPair
from tests.support.small_evaluation import CONFIG, check_alike, evaluate_retrieval, pixels_of


def slow_recalls(scores: np.ndarray, right: list[set[int]]) -> dict[int, float]:
    ranks = []
    for row, chosen in zip(scores, right, strict=True):
        best = max(row[n] for n in chosen)
        ranks.append(sum(row[n] >= best for n in range(len(row)) if n not in chosen))
    return {k: sum(rank < k for rank in ranks) / len(ranks) for k in (1, 5, 10)}


def check_both_ways(
    recalls: dict[str, float], to_text: np.ndarray, to_image: np.ndarray, texts_of: list[set[int]]
) -> None:
    images_of = [{i for i, own in enumerate(texts_of) if t in own} for t in range(len(to_image))]
    for name, expected in (
        ("tr", slow_recalls(to_text, texts_of)),
        ("ir", slow_recalls(to_image, images_of)),
    ):
        assert {k: recalls[f"{name}@{k}"] for k in (1, 5, 10)} == pytest.approx(expected)


@pytest.mark.parametrize("k", [3, 256])
def test_retrieval_counts_what_the_model_finds(
    folders: Path, pairs_of_several: list[LabelledPair], k: int
) -> None:
    measures = evaluate_retrieval(folders / "filter", pairs_of_several, CONFIG, k=k)
    # to the model the two spellings of a shared text are one
    as_read = [[" ".join(t.lower().strip("!").split()) for t in p.texts] for p in pairs_of_several]
    distinct = list(dict.fromkeys(text for texts in as_read for text in texts))
    texts_of = [{distinct.index(text) for text in texts} for texts in as_read]
    assert measures["texts"] == len(distinct) < sum(len(own) for own in texts_of)
    assert measures["images"] == len(pairs_of_several)
    assert measures["left_out"] == {}

    scorer = Filter.load(folders / "filter", dtype="fp32")
    rows = [scorer.score(pixels_of(scorer, pair), [distinct])[0] for pair in pairs_of_several]
    cosines = np.array([[score.itc for score in row] for row in rows])
    check_both_ways(measures["itc"], cosines, cosines.T, texts_of)
    retriever = Retriever.load(folders / "filter", dtype="fp32")
    pictures = torch.cat([pixels_of(retriever, pair) for pair in pairs_of_several])
    ranking = retriever.rank(retriever.encode_images(pictures), retriever.encode_texts(distinct), k)
    check_both_ways(measures["itm"], ranking.to_text.numpy(), ranking.to_image.numpy(), texts_of)
    assert measures["itm"] != measures["itc"]


def test_more_texts_than_are_read_at_once_are_all_searched(
    folders: Path, pairs: list[LabelledPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate_retrieval(folders / "filter", pairs, CONFIG)
    monkeypatch.setattr("pipeline.evaluate.retrieval.TEXTS_AT_ONCE", 5)  # of different lengths
    check_alike(evaluate_retrieval(folders / "filter", pairs, CONFIG), whole)


def test_a_pretraining_checkpoint_is_a_retriever_too(
    folders: Path, tmp_path: Path, pairs_of_several: list[LabelledPair]
) -> None:
    loaded = checkpoint.load(folders / "pretrain", "pretrain", dtype="fp32", device="cpu")
    described = loaded.description
    network = MatchNetwork(described.config)
    own = loaded.network.state_dict()
    network.load_state_dict({name: own[name] for name in network.state_dict()})
    parts = (described.config, described.settings, described.preprocess, described.tokenizer)
    write(tmp_path / "filter", CheckpointContent("filter", *parts, network.state_dict(), {}))
    expected = evaluate_retrieval(tmp_path / "filter", pairs_of_several, CONFIG)
    assert evaluate_retrieval(folders / "pretrain", pairs_of_several, CONFIG) == expected


def test_nothing_to_evaluate_gives_no_numbers(folders: Path) -> None:
    found = evaluate_retrieval(folders / "filter", [], CONFIG)
    assert (found["images"], found["texts"], found["left_out"]) == (0, 0, {})
    assert set(found["itc"].values()) == set(found["itm"].values()) == {None}
