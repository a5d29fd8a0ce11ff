"""VQA: the original's and transformers' numbers, and answers that do not depend on the batch."""

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
from models.blip.tokenizer import normalise_question
from models.checkpoints import checkpoint
from models.decoding import answering
from models.decoding.answering import Questions
from models.decoding.generate import DecoderStart
from models.roles.vqa import DECODING, VqaModel

Original = Callable[[str, Role], nn.Module]
Folders = Callable[[str, Role], Path]
Reference = Callable[[str], tuple[dict[str, Tensor], dict[str, float]]]


@pytest.fixture(scope="module")
def network(original: Original) -> nn.Module:
    return original("vqa", "vqa")


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


@pytest.fixture(scope="module")
def answerer(original_folder: Folders) -> VqaModel:
    return VqaModel.load(original_folder("vqa", "vqa"), dtype="fp32")


def read(network: VqaNetwork, values: dict[str, Tensor], pixels: Tensor) -> Questions:
    ids, mask = values["in.question_ids"], values["in.question_mask"].bool()
    return Questions(network.questions(ids, mask, network.vision_model(pixels)), mask)


def answers(values: dict[str, Tensor], name: str) -> TokenBatch:
    return TokenBatch(values[f"in.{name}_ids"], values[f"in.{name}_mask"].bool())


def until_end(row: list[int], end_id: int) -> list[int]:
    return row[: row.index(end_id)] if end_id in row else row


@torch.no_grad()
def test_question_states_equal_the_original(
    network: VqaNetwork, values: Any, images: Tensor, normalise: Any, close: Any
) -> None:
    close("question_states", read(network, values, normalise(images[:4])).states)


def test_training_loss_and_gradients_equal_the_original(
    original: Original, facts: Any, values: Any, images: Tensor, normalise: Any, close: Any
) -> None:
    from models.checkpoints.original import rename

    network = original("vqa", "vqa").requires_grad_(True)
    questions, framed = read(network, values, normalise(images[:4])), answers(values, "answer")
    owner = torch.repeat_interleave(values["in.n"])
    logits = network.answer_logits(framed.ids, questions.states[owner], questions.mask[owner])
    close("answer_nll", answering.sequence_nll(logits, framed))
    total = answering.vqa_loss(network, questions, framed, values["in.n"], values["in.weights"])
    close("train_loss", total)
    total.backward()
    parameters = dict(network.named_parameters())
    for name, norm in facts["grad_norms"].items():
        found = parameters[rename(name)].grad.norm().item()
        assert found == pytest.approx(norm["fp32"], rel=1e-3), name
    every = torch.stack([p.grad.norm() for p in parameters.values() if p.grad is not None]).norm()
    assert every.item() == pytest.approx(facts["grad_norm_total"]["fp32"], rel=1e-3)


@torch.no_grad()
def test_ranking_equals_the_original(
    network: VqaNetwork, facts: Any, values: Any, images: Tensor, normalise: Any, close: Any
) -> None:
    questions, framed = read(network, values, normalise(images[:4])), answers(values, "candidate")
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
    questions = read(network, values, normalise(images[:4]))
    chosen = DECODING.model_copy(update={"method": method})
    found = answering.write(network, questions, start, chosen, "total", "ignored")
    name = {"beam": "out.generate_ids_beam3", "greedy": "out.generate_ids_greedy"}[method]
    expected = [until_end(row, start.end_id) for row in values[name].tolist()]
    assert [start.prompt + text.ids for text in found] == expected
    masked = answering.write(network, questions, start, chosen, "total", "applied")
    assert [text.ids for text in masked] != [text.ids for text in found]


def test_answers_equal_the_original(
    original_folder: Folders, facts: Any, values: Any, images: Tensor, answerer: VqaModel
) -> None:
    folder, questions = original_folder("vqa", "vqa"), facts["questions"]
    as_original = VqaModel.load(folder, dtype="fp32", question_mask="ignored")
    found = as_original.answer(images[:4], questions)
    assert [answer.text.replace(" ", "") for answer in found] == [
        text.replace(" ", "") for text in facts["generate_answers"]
    ]
    ranked = answerer.rank(images[:4], questions, facts["candidates"], facts["k_test"])
    assert [row[0].index for row in ranked] == values["out.rank_answer"].tolist()
    assert [row[0].text for row in ranked] == [facts["candidates"][row[0].index] for row in ranked]


def test_loss_and_ids_equal_transformers(
    parity: Path, hf_values: dict[str, Tensor], hf_facts: Any, images: Tensor, normalise: Any
) -> None:
    loaded = checkpoint.load(parity / "hf/vqa", "vqa", dtype="fp32", device="cpu")
    network, words = loaded.network, loaded.description.tokenizer
    assert isinstance(network, VqaNetwork)
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
        found = answering.write(
            network, Questions(states, mask), start, chosen, "generated", "ignored"
        )
        rows = hf_values[f"out.vqa_ids_{name}"].tolist()
        assert [start.prompt + text.ids for text in found] == [
            until_end(row, start.end_id) for row in rows
        ]


def test_answers_do_not_depend_on_the_batch(answerer: VqaModel, images: Tensor, facts: Any) -> None:
    questions = [*facts["questions"], "what", "", "is the dog in the park near the old red house?"]
    pictures, candidates = images[: len(questions)], facts["candidates"]
    together = answerer.answer(pictures, questions)
    ranked = answerer.rank(pictures, questions, candidates, 5)
    backwards = answerer.answer(pictures.flip(0), questions[::-1])[::-1]
    for number, question in enumerate(questions):
        picture = pictures[number : number + 1]
        alone = answerer.answer(picture, [question])[0]
        for other in (alone, backwards[number]):
            assert (other.text, other.truncated) == (
                together[number].text,
                together[number].truncated,
            )
            assert other.logprob == pytest.approx(together[number].logprob, abs=1e-5)
        for first, second in zip(
            answerer.rank(picture, [question], candidates, 5)[0], ranked[number], strict=True
        ):
            assert first.index == second.index
            assert first.score == pytest.approx(second.score, rel=1e-5)
            assert first.first == pytest.approx(second.first, abs=1e-6)


def test_without_a_mask_an_answer_depends_on_the_batch(
    original_folder: Folders, images: Tensor, facts: Any
) -> None:
    loose = VqaModel.load(original_folder("vqa", "vqa"), dtype="fp32", question_mask="ignored")
    together = loose.answer(images[:4], facts["questions"])
    alone = [loose.answer(images[n : n + 1], [facts["questions"][n]])[0] for n in range(4)]
    assert [a.logprob for a in alone] != pytest.approx([a.logprob for a in together], abs=1e-4)


def test_every_answer_is_ranked_where_k_is_large(
    answerer: VqaModel, images: Tensor, facts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = [*facts["candidates"], *facts["candidates"]]  # ties: the first comes first
    whole = answerer.rank(images[:1], ["what is it"], candidates, 10_000)[0]
    assert sorted(ranked.index for ranked in whole) == list(range(len(candidates)))
    assert [r.score for r in whole] == sorted((r.score for r in whole), reverse=True)
    monkeypatch.setattr(answering, "_ROWS", 5)
    parts = answerer.rank(images[:1], ["what is it"], candidates, 10_000)[0]
    assert [r.index for r in parts] == [r.index for r in whole]
    assert [r.score for r in parts] == pytest.approx([r.score for r in whole], rel=1e-6)


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


def test_a_video_is_asked_like_an_image(answerer: VqaModel, images: Tensor, facts: Any) -> None:
    question = facts["questions"][:1]
    one = answerer.answer(images[:1], question)
    assert answerer.answer(images[:1][:, None], question) == one
    frames = images[None, :4]
    found, turned = answerer.answer(frames, question), answerer.answer(frames.flip(1), question)
    assert found[0].text == turned[0].text  # cross-attention knows no order of frames
    assert found[0].logprob == pytest.approx(turned[0].logprob, abs=1e-5)
    assert found[0].logprob != pytest.approx(one[0].logprob, abs=1e-4)


def test_one_video_is_looked_at_once_for_all_questions(
    answerer: VqaModel, images: Tensor, facts: Any
) -> None:
    questions, video = facts["questions"][:3], images[None, :4]
    repeated = video.expand(3, -1, -1, -1, -1)
    once, each = answerer.answer(video, questions), answerer.answer(repeated, questions)
    assert [one.text for one in once] == [one.text for one in each]
    assert [one.logprob for one in once] == pytest.approx([one.logprob for one in each], abs=1e-5)
    ranked = answerer.rank(video, questions, facts["candidates"])
    expected = answerer.rank(repeated, questions, facts["candidates"])
    assert [[one.index for one in own] for own in ranked] == [
        [one.index for one in own] for own in expected
    ]


def test_empty_inputs(answerer: VqaModel, images: Tensor) -> None:
    assert answerer.answer(images[:0], []) == []
    assert answerer.rank(images[:2], ["a", "b"], []) == [[], []]
    assert answerer.rank(images[:0], [], ["a"]) == []


def test_questions_are_normalised() -> None:
    assert normalise_question('What "COLOR" is (it)?!  ') == "what color is it?"
    assert normalise_question("a-b, c;d: #1 *~") == "a-b, cd 1"
    assert len(normalise_question("dog " * 80).split()) == 50


def test_more_answer_tokens_than_positions_are_refused(answerer: VqaModel, images: Tensor) -> None:
    long = DECODING.model_copy(update={"max_tokens": 64})
    with pytest.raises(ValueError, match="64 positions"):
        answerer.answer(images[:1], ["what"], long)


def test_bf16_is_close(
    original_folder: Folders, answerer: VqaModel, images: Tensor, facts: Any
) -> None:
    rough = VqaModel.load(original_folder("vqa", "vqa"), dtype="bf16")
    exact, found = (
        one.rank(images[:4], facts["questions"], facts["candidates"], 99)
        for one in (answerer, rough)
    )
    for row, other in zip(exact, found, strict=True):
        scores = {ranked.index: ranked.score for ranked in other}
        for ranked in row:
            assert scores[ranked.index] == pytest.approx(ranked.score, rel=0.05)
    written = rough.answer(images[:4], facts["questions"])
    assert all(answer.logprob < 0 for answer in written)


def test_a_limit_that_does_not_fit_is_refused(original_folder: Folders) -> None:
    for limit in (1, 65):
        with pytest.raises(ValueError, match="takes 2 to 64"):
            VqaModel.load(original_folder("vqa", "vqa"), max_tokens=limit, dtype="fp32")


def test_questions_about_one_picture_look_at_it_once(
    original_folder: Any, images: Tensor, facts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers are those of questions that bring a picture each."""
    answerer = VqaModel.load(original_folder("vqa", "vqa"), dtype="fp32")
    questions, about = ["is it a dog?", "what color?", "how many?", "where?"], [1, 0, 1, 1]
    listed = facts["candidates"]
    each = images[about]
    apart = answerer.rank(each, questions, listed), answerer.answer(each, questions)
    looked: list[int] = []
    real = answerer.network.vision_model.forward

    def look(pixels: Tensor) -> Tensor:
        looked.append(len(pixels))
        return real(pixels)

    monkeypatch.setattr(answerer.network.vision_model, "forward", look)
    ranked = answerer.rank(images[:2], questions, listed, about=about)
    written = answerer.answer(images[:2], questions, about=about)
    assert looked == [2, 2]
    assert [one.text for one in written] == [one.text for one in apart[1]]
    for ours, theirs in zip(ranked, apart[0], strict=True):
        assert [one.index for one in ours] == [one.index for one in theirs]
        scores = [one.score for one in theirs]
        assert [one.score for one in ours] == pytest.approx(scores, abs=1e-4)
