"""VQA: the original's answers, and answers that do not depend on the batch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from models.blip.config import Role
from models.blip.tokenizer import normalise_question
from models.decoding import answering
from models.roles.vqa import DECODING, VqaModel

Original = Callable[[str, Role], nn.Module]
Folders = Callable[[str, Role], Path]
Reference = Callable[[str], tuple[dict[str, Tensor], dict[str, float]]]


@pytest.fixture(scope="module")
def facts(parity: Path) -> dict[str, Any]:
    return json.loads((parity / "vqa.json").read_text())


@pytest.fixture(scope="module")
def answerer(original_folder: Folders) -> VqaModel:
    return VqaModel.load(original_folder("vqa", "vqa"), dtype="fp32")


def test_answers_equal_the_original(
    original_folder: Folders,
    reference: Reference,
    facts: Any,
    images: Tensor,
    answerer: VqaModel,
) -> None:
    values, _ = reference("vqa")
    folder, questions = original_folder("vqa", "vqa"), facts["questions"]
    as_original = VqaModel.load(folder, dtype="fp32", question_mask="ignored")
    found = as_original.answer(images[: len(questions)], questions)
    assert [answer.text.replace(" ", "") for answer in found] == [
        text.replace(" ", "") for text in facts["generate_answers"]
    ]
    ranked = answerer.rank(
        images[: len(questions)], questions, facts["candidates"], facts["k_test"]
    )
    assert [row[0].index for row in ranked] == values["out.rank_answer"].tolist()
    assert [row[0].text for row in ranked] == [facts["candidates"][row[0].index] for row in ranked]


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
    questions = facts["questions"]
    together = loose.answer(images[: len(questions)], questions)
    alone = [loose.answer(images[n, None], [text])[0] for n, text in enumerate(questions)]
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


def test_more_answer_tokens_than_positions_are_refused(
    answerer: VqaModel, images: Tensor, facts: Any
) -> None:
    most = facts["config"]["text"]["max_position_embeddings"]
    long = DECODING.model_copy(update={"max_tokens": most})
    with pytest.raises(ValueError, match=f"{most} positions"):
        answerer.answer(images[:1], ["what"], long)


def test_bf16_is_close(
    original_folder: Folders, answerer: VqaModel, images: Tensor, facts: Any
) -> None:
    rough = VqaModel.load(original_folder("vqa", "vqa"), dtype="bf16")
    exact, found = (
        one.rank(images[: len(facts["questions"])], facts["questions"], facts["candidates"], 99)
        for one in (answerer, rough)
    )
    for row, other in zip(exact, found, strict=True):
        scores = {ranked.index: ranked.score for ranked in other}
        for ranked in row:
            assert scores[ranked.index] == pytest.approx(ranked.score, rel=0.05)
    written = rough.answer(images[: len(facts["questions"])], facts["questions"])
    assert all(answer.logprob < 0 for answer in written)


def test_a_limit_that_does_not_fit_is_refused(original_folder: Folders, facts: Any) -> None:
    most = facts["config"]["text"]["max_position_embeddings"]
    for limit in (1, most + 1):
        with pytest.raises(ValueError, match=f"takes 2 to {most}"):
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
