"""A dialogue as one text, cut from its oldest rounds, and what is learned from its answers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.blip.config import Role
from models.blip.framing import TokenBatch
from models.blip.networks import MatchNetwork
from models.blip.tokenizer import WordPiece
from models.training.dialogue import Dialogue, compose, compose_answered, match_loss

Original = Callable[[str, Role], nn.Module]

DIALOGUES = [
    Dialogue("A red dog!", [("is it a dog?", "yes"), ("what color?", "red")], "Is it in the park?"),
    Dialogue("two birds over the sea", [], "how many birds?"),
    Dialogue("", [("is this a man?", "no.")], ""),
]


def text_of(words: WordPiece, ids: list[int]) -> str:
    """The words of ids, a bar for each [SEP]."""
    parts: list[list[int]] = [[]]
    for token in ids:
        if token == words.sep_id:
            parts.append([])
        else:
            parts[-1].append(token)
    return " | ".join(words.decode(parts)).replace(" ?", "?")


def test_an_answer_stands_after_its_question(vocabulary: WordPiece) -> None:
    composed = compose_answered(vocabulary, 99, DIALOGUES[0], ["Yes!", "", "in the park"])
    found = [text_of(vocabulary, ids) for ids in composed]
    said = "a red dog | is it a dog? yes | what color? red | is it in the park?"
    assert found == [f"{said} yes", said, f"{said} in the park"]


def test_only_the_longer_answer_costs_a_round(vocabulary: WordPiece) -> None:
    """What a candidate is read with does not depend on the others."""
    whole = len(compose_answered(vocabulary, 99, DIALOGUES[0], ["yes"])[0]) + 2
    short, long = compose_answered(vocabulary, whole, DIALOGUES[0], ["yes", "yes it is"])
    assert "dog? yes" in text_of(vocabulary, short)
    found = text_of(vocabulary, long)
    assert found == "a red dog | what color? red | is it in the park? yes it is"


def test_a_round_that_does_not_fit_takes_the_older_ones_along(vocabulary: WordPiece) -> None:
    long = ("is it " + "a dog " * 20 + "?", "no")
    dialogue = Dialogue("a red house", [("two?", "no"), long, long], "where?")
    found = text_of(vocabulary, compose(vocabulary, 99, dialogue))
    assert found.count("dog") == 20
    assert "two" not in found  # it would fit, but what came between is missing


def test_a_dialogue_is_one_text(vocabulary: WordPiece) -> None:
    found = text_of(vocabulary, compose(vocabulary, 99, DIALOGUES[0]))
    first = "a red dog | is it a dog? yes | what color? red | is it in the park?"
    assert found == first
    found = text_of(vocabulary, compose(vocabulary, 99, DIALOGUES[1]))
    assert found == "two birds over the sea | how many birds?"
    assert compose(vocabulary, 99, DIALOGUES[2])[0] == vocabulary.sep_id  # no caption


def test_the_loss_is_that_of_each_answer_alone(
    original: Original, vocabulary: WordPiece, images: Tensor, normalise: Callable[[Tensor], Tensor]
) -> None:
    """Two dialogues with three answers each, one of which does not count."""
    network = original("retrieval", "filter")
    assert isinstance(network, MatchNetwork)
    composed = [
        [vocabulary.enc_id, *ids, vocabulary.sep_id]
        for dialogue in DIALOGUES[:2]
        for ids in compose_answered(vocabulary, 99, dialogue, ["yes", "in the park", "two dogs"])
    ]
    ids = torch.nn.utils.rnn.pad_sequence(list(map(torch.tensor, composed)), True)
    mask = torch.arange(ids.shape[1]) < torch.tensor([[len(row)] for row in composed])
    weights = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    with torch.no_grad():
        states = network.vision_model(normalise(images[:2]))
        loss, accuracy = match_loss(network, TokenBatch(ids, mask), states, weights)
        terms, scores = [], []
        for number, row in enumerate(composed):
            read, image = torch.tensor([row]), states[number // 3, None]
            logits = network.match_logits(read, torch.ones_like(read).bool(), image, None)[0]
            terms.append(-logits.log_softmax(-1)[int(number % 3 == 0)].item())
            scores.append((logits[1] - logits[0]).item())
    expected = sum(term for n, term in enumerate(terms) if n != 2) / 5
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    right = (scores[0] > scores[1]) + (scores[3] > max(scores[4:]))
    assert accuracy.item() == right / 2
