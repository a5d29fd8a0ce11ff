"""Visual dialogue: what models read, and rankings that do not depend on the batch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BlipForImageTextRetrieval

from models.blip.config import Role
from models.checkpoints import checkpoint
from models.checkpoints.locate import CheckpointError
from models.roles.dialogue import DialogueRanker, LikelihoodRanker, MatchRanker, load_ranker
from models.roles.vqa import VqaModel
from models.training.dialogue import Dialogue, compose_answered

Folders = Callable[[str, Role], Path]

DIALOGUES = [
    Dialogue("A red dog!", [("is it a dog?", "yes"), ("what color?", "red")], "Is it in the park?"),
    Dialogue("two birds over the sea", [], "how many birds?"),
    Dialogue("", [("is this a man?", "no.")], ""),
    Dialogue("a man near a house", [("where is the man?", "in the field")] * 9, "what is it?"),
]


@pytest.fixture(scope="module")
def answerer(original_folder: Folders) -> VqaModel:
    return VqaModel.load(original_folder("vqa", "vqa"), max_tokens=None, dtype="fp32")


@pytest.fixture(scope="module")
def teller(answerer: VqaModel) -> LikelihoodRanker:
    return LikelihoodRanker(answerer)


@pytest.fixture(scope="module")
def judge(original_folder: Folders) -> MatchRanker:
    return MatchRanker.load(original_folder("retrieval", "filter"), dtype="fp32")


@pytest.fixture(scope="module", params=["match", "likelihood"])
def ranker(request: pytest.FixtureRequest, original_folder: Folders) -> DialogueRanker:
    names: tuple[str, Role] = (
        ("retrieval", "filter") if request.param == "match" else ("vqa", "vqa")
    )
    return load_ranker(original_folder(*names), dtype="fp32")


@pytest.fixture(scope="module")
def candidates(parity: Path) -> list[str]:
    return json.loads((parity / "vqa.json").read_text())["candidates"]


def text_of(answerer: VqaModel, ids: list[int]) -> str:
    """The words of ids, a bar for each [SEP]."""
    parts: list[list[int]] = [[]]
    for token in ids:
        if token == answerer.tokenizer.sep_id:
            parts.append([])
        else:
            parts[-1].append(token)
    return " | ".join(answerer.tokenizer.decode(parts))


def test_the_oldest_rounds_fall_away_whole(
    original_folder: Folders, answerer: VqaModel, teller: LikelihoodRanker
) -> None:
    loaded = checkpoint.load(original_folder("vqa", "vqa"), "vqa", dtype="fp32", device="cpu")
    history = [
        (f"is it a {name}?", answer)
        for name, answer in (("dog", "no"), ("cat", "no"), ("man", "yes"))
    ]
    dialogue = Dialogue("a red house", history, "where?")
    full = teller.compose(dialogue)
    seen: list[str] = []
    for limit in range(2, 64):
        ids = LikelihoodRanker(VqaModel(loaded, limit)).compose(dialogue)
        assert len(ids) <= limit - 2
        text = text_of(answerer, ids).replace(" ?", "?")
        if not seen or text != seen[-1]:
            seen.append(text)
    assert seen[-1] == text_of(answerer, full).replace(" ?", "?")
    rounds = ["is it a dog? no", "is it a cat? no", "is it a man? yes"]
    for kept in range(4):
        parts = ["a red house", *rounds[3 - kept :], "where?"]
        assert " | ".join(parts) in seen
    assert all(text.endswith("where?") for text in seen if "house" in text)
    assert not any("dog" in text and "cat" not in text for text in seen)
    assert seen[0] == ""


def test_scores_are_those_of_the_answer_decoder(
    answerer: VqaModel, teller: LikelihoodRanker, images: Tensor, candidates: list[str]
) -> None:
    """Candidate by candidate, each token's smoothed log-probability added up."""
    network = answerer.network
    found = teller.rank(images[:1], DIALOGUES[:1], [candidates])[0]
    ids = torch.tensor(
        [[answerer.first_id, *teller.compose(DIALOGUES[0]), answerer.tokenizer.sep_id]]
    )
    pixels = answerer.preprocess.normalise(images[:1], torch.float32)
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        states = network.questions(ids, mask, network.vision_model(pixels))
        for candidate in found:
            framed = answerer.frame_answers([candidate.text])
            rows: Any = network.answer_logits(framed.ids, states, mask)[0].log_softmax(-1)
            total = 0.0
            for place, token in enumerate(framed.ids[0, 1:].tolist()):
                total += 0.9 * rows[place, token].item() + 0.1 * rows[place].mean().item()
            assert candidate.score == pytest.approx(total, rel=1e-4)
            assert candidates[candidate.index] == candidate.text
    assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
    assert sorted(c.index for c in found) == list(range(len(candidates)))


def test_a_match_is_what_transformers_finds(
    original_folder: Folders,
    judge: MatchRanker,
    answerer: VqaModel,
    images: Tensor,
    candidates: list[str],
) -> None:
    """The parity models share one vocabulary; transformers reads one candidate at a time."""
    words = answerer.tokenizer
    theirs = BlipForImageTextRetrieval.from_pretrained(original_folder("retrieval", "filter"))
    theirs.eval()
    found = judge.rank(images[:2], DIALOGUES[:2], [candidates, candidates[:3]])
    for row, ranked in enumerate(found):
        pixels = judge.preprocess.normalise(images[row, None], torch.float32)
        for candidate in ranked:
            (ids,) = compose_answered(words, 512, DIALOGUES[row], [candidate.text])
            read = torch.tensor([[words.enc_id, *ids, words.sep_id]])
            with torch.no_grad():
                (logits,) = theirs(read, pixels, attention_mask=torch.ones_like(read)).itm_score
            assert candidate.score == pytest.approx((logits[1] - logits[0]).item(), abs=1e-4)
        assert [c.score for c in ranked] == sorted((c.score for c in ranked), reverse=True)


def test_a_folder_tells_how_it_ranks(original_folder: Folders) -> None:
    assert isinstance(load_ranker(original_folder("vqa", "vqa")), LikelihoodRanker)
    assert isinstance(load_ranker(original_folder("retrieval", "filter")), MatchRanker)
    with pytest.raises(CheckpointError, match="found nlvr"):
        load_ranker(original_folder("nlvr", "nlvr"))


def test_rankings_do_not_depend_on_the_batch(
    ranker: DialogueRanker, images: Tensor, candidates: list[str]
) -> None:
    lists = [candidates, candidates[:3], [], candidates[::-1]]
    together = ranker.rank(images[:4], DIALOGUES, lists)
    assert [len(row) for row in together] == [len(row) for row in lists]
    for number in range(4):
        alone = ranker.rank(images[number : number + 1], [DIALOGUES[number]], [lists[number]])[0]
        assert [c.index for c in alone] == [c.index for c in together[number]]
        for first, second in zip(alone, together[number], strict=True):
            assert first.score == pytest.approx(second.score, rel=1e-5)
    few = {c.text: c.score for c in together[1]}
    whole = {c.text: c.score for c in ranker.rank(images[1:2], [DIALOGUES[1]], [candidates])[0]}
    for text, score in few.items():
        assert whole[text] == pytest.approx(score, rel=1e-5)


def test_history_caption_and_image_count(
    ranker: DialogueRanker, images: Tensor, candidates: list[str]
) -> None:
    one = DIALOGUES[0]
    others = [
        Dialogue("a blue cat", one.history, one.question),
        Dialogue(one.caption, one.history[:1], one.question),
        Dialogue(one.caption, one.history, "how many dogs?"),
    ]
    first, *rest = ranker.rank(images[[0, 0, 0, 0, 1]], [one, *others, one], [candidates] * 5)
    for other in rest:
        assert [c.score for c in other] != pytest.approx([c.score for c in first], abs=1e-4)


def test_no_dialogues(ranker: DialogueRanker, images: Tensor) -> None:
    assert ranker.rank(images[:0], [], []) == []
