"""Answers: the original's and transformers' losses, rankings and ids."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.blip.config import Role
from models.blip.framing import TokenBatch
from models.blip.networks import VqaNetwork
from models.checkpoints import checkpoint
from models.decoding import answering
from models.decoding.answering import Questions
from models.decoding.draft import DecoderStart
from models.roles.vqa import DECODING
from tests.support.gradients import check_gradients

Original = Callable[[str, Role], nn.Module]
Reference = Callable[[str], tuple[dict[str, Tensor], dict[str, float]]]


@pytest.fixture(scope="module")
def network(original: Original) -> VqaNetwork:
    network = original("vqa", "vqa")
    assert isinstance(network, VqaNetwork)
    return network


@pytest.fixture(scope="module")
def values(reference: Reference) -> dict[str, Tensor]:
    return reference("vqa")[0]


@pytest.fixture(scope="module")
def close(reference: Reference) -> Callable[[str, Tensor], None]:
    values, limits = reference("vqa")

    def check(name: str, found: Tensor) -> None:
        name = f"out.{name}"
        torch.testing.assert_close(found, values[name], atol=limits[name], rtol=1e-5)

    return check


@pytest.fixture(scope="module")
def facts(parity: Path) -> dict[str, Any]:
    return json.loads((parity / "vqa.json").read_text())


def read(
    network: VqaNetwork, values: dict[str, Tensor], images: Tensor, normalise: Any
) -> Questions:
    """Read each question beside its own image: the first, the second and so on."""
    ids, mask = values["in.question_ids"], values["in.question_mask"].bool()
    states = network.vision_model(normalise(images[: len(ids)]))
    return Questions(network.questions(ids, mask, states), mask)


def answers(values: dict[str, Tensor], name: str) -> TokenBatch:
    return TokenBatch(values[f"in.{name}_ids"], values[f"in.{name}_mask"].bool())


def until_end(row: list[int], end_id: int) -> list[int]:
    return row[: row.index(end_id)] if end_id in row else row


@torch.no_grad()
def test_question_states_equal_the_original(
    network: VqaNetwork, values: Any, images: Tensor, normalise: Any, close: Any
) -> None:
    close("question_states", read(network, values, images, normalise).states)


def test_training_loss_and_gradients_equal_the_original(
    original: Original, facts: Any, values: Any, images: Tensor, normalise: Any, close: Any
) -> None:
    network = original("vqa", "vqa").requires_grad_(True)
    assert isinstance(network, VqaNetwork)
    questions, framed = read(network, values, images, normalise), answers(values, "answer")
    owner = torch.repeat_interleave(values["in.n"])
    logits = network.answer_logits(framed.ids, questions.states[owner], questions.mask[owner])
    close("answer_nll", answering.sequence_nll(logits, framed))
    total = answering.vqa_loss(network, questions, framed, values["in.n"], values["in.weights"])
    close("train_loss", total)
    total.backward()
    check_gradients(network, facts)


@torch.no_grad()
def test_ranking_equals_the_original(
    network: VqaNetwork, facts: Any, values: Any, images: Tensor, normalise: Any, close: Any
) -> None:
    questions, framed = read(network, values, images, normalise), answers(values, "candidate")
    dec_id, k = facts["config"]["tokenizer"]["bos_id"], facts["k_test"]
    assert (framed.ids[:, 0] == dec_id).all()
    first = answering.first_probabilities(network, questions, dec_id)
    close("rank_prob_first_token", first[:, framed.ids[:, 1]])
    some = answering.rank(network, questions, framed, k)
    assert some.index.tolist() == values["out.rank_topk_ids"].tolist()
    close("rank_scores", some.score)
    best = some.index.gather(1, some.score.argmax(1, keepdim=True)).squeeze(1)
    assert best.tolist() == values["out.rank_answer"].tolist()
    every = answering.rank(network, questions, framed, len(framed.ids))
    close("rank_scores_all", torch.zeros_like(every.score).scatter(1, every.index, every.score))
    best = every.index.gather(1, every.score.argmax(1, keepdim=True)).squeeze(1)
    assert best.tolist() == values["out.rank_answer_k12"].tolist()


@pytest.mark.parametrize("method", ["beam", "greedy"])
@torch.no_grad()
def test_written_ids_equal_the_original(
    network: VqaNetwork, facts: Any, values: Any, images: Tensor, normalise: Any, method: str
) -> None:
    words = facts["config"]["tokenizer"]
    start = DecoderStart([words["bos_id"]], words["sep_id"], words["pad_id"])
    questions = read(network, values, images, normalise)
    chosen = DECODING.model_copy(update={"method": method})
    found = answering.write(network, questions, start, chosen, "total", "ignored")
    name = {"beam": "out.generate_ids_beam3", "greedy": "out.generate_ids_greedy"}[method]
    expected = [until_end(row, start.end_id) for row in values[name].tolist()]
    assert [start.prompt + text.ids for text in found] == expected
    masked = answering.write(network, questions, start, chosen, "total", "applied")
    logprobs = [text.logprob for text in found]
    assert [text.logprob for text in masked] != pytest.approx(logprobs, abs=1e-4)


def test_loss_and_ids_equal_transformers(
    parity: Path, hf_values: dict[str, Tensor], hf_facts: Any, images: Tensor, normalise: Any
) -> None:
    loaded = checkpoint.load(parity / "hf/vqa", "vqa", dtype="fp32", device="cpu")
    network, words = loaded.network_as(VqaNetwork), loaded.description.tokenizer
    ids, mask = hf_values["in.vqa_question_ids_enc"], hf_values["in.vqa_question_mask"].bool()
    states = network.questions(ids, mask, network.vision_model(normalise(images[: len(ids)])))
    framed = TokenBatch(
        hf_values["in.vqa_decoder_input_ids"], hf_values["in.vqa_decoder_attention_mask"].bool()
    )
    # transformers' loss has no smoothing by default, is a mean over tokens, and ignores the mask
    # of the question
    logits = network.answer_logits(framed.ids, states, torch.ones_like(mask))
    found = answering.sequence_nll(logits, framed, 0.0).sum() / framed.mask[:, 1:].sum()
    atol = hf_facts["tolerance"]["vqa_loss"]["atol"]
    torch.testing.assert_close(found, hf_values["out.vqa_loss"], atol=atol, rtol=1e-5)
    start = DecoderStart([words.dec_id], words.sep_id, words.pad_id)
    for name, method in (("beam3", "beam"), ("greedy", "greedy")):
        chosen = DECODING.model_copy(update={"method": method})
        texts = answering.write(
            network, Questions(states, mask), start, chosen, "generated", "ignored"
        )
        rows = hf_values[f"out.vqa_ids_{name}"].tolist()
        assert [start.prompt + text.ids for text in texts] == [
            until_end(row, start.end_id) for row in rows
        ]


def test_the_nll_is_a_plain_sum_over_tokens() -> None:
    torch.manual_seed(0)
    logits, ids = torch.randn(3, 5, 7), torch.randint(0, 7, (3, 5))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]).bool()
    expected = []
    for row in range(3):
        total = 0.0
        for place in range(1, int(mask[row].sum())):
            chances = logits[row, place - 1].log_softmax(-1)
            total -= 0.9 * chances[ids[row, place]].item() + 0.1 * chances.mean().item()
        expected.append(total)
    found = answering.sequence_nll(logits, TokenBatch(ids, mask))
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_pads_of_answers_do_not_count() -> None:
    ids = torch.tensor([[1, 2, 3]])
    whole = answering.sequence_nll(torch.zeros(1, 3, 9), TokenBatch(ids, ids > 0))
    padded = answering.sequence_nll(
        torch.zeros(1, 4, 9),
        TokenBatch(torch.tensor([[1, 2, 3, 0]]), torch.tensor([[1, 1, 1, 0]]) > 0),
    )
    torch.testing.assert_close(whole, padded)
