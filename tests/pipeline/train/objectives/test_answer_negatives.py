"""Wrong answers are wrong, differ, and come from a question's own candidates where it has some."""

from models.blip.tokenizer import normalise
from pipeline.train.objectives.answer_negatives import wrong_answers
from shards.training.annotation import SourceText, WeightedAnswer


def asked(answer: str, *options: str) -> SourceText:
    return SourceText("what?", "human", (WeightedAnswer(answer, 1.0),), options=options)


def test_candidates_that_read_like_the_true_answer_are_not_wrong() -> None:
    text = asked("Yes.", "yes", "YES!", "no", "No.", "maybe", "red")
    for seed in range(20):
        (found,) = wrong_answers([text], 5, seed)
        assert sorted(found) == ["maybe", "no", "red"]


def test_each_draw_is_its_own_and_the_same_for_a_seed() -> None:
    options = [f"answer {n}" for n in range(100)]
    texts = [asked("answer 7", *options)] * 2
    drawn = [wrong_answers(texts, 2, seed) for seed in range(400)]
    assert drawn == [wrong_answers(texts, 2, seed) for seed in range(400)]
    assert all(len(set(row)) == 2 for both in drawn for row in both)
    assert {one for both in drawn for row in both for one in row} == {*options} - {"answer 7"}
    assert sum(first == second for first, second in drawn) < 10  # rows draw apart


def test_without_candidates_the_batch_gives_its_answers() -> None:
    texts = [asked("yes"), asked("no"), asked("Yes"), asked("two dogs", "one", "three")]
    for seed in range(20):
        first, second, third, last = wrong_answers(texts, 9, seed)
        assert sorted(first) == sorted(third) == ["no", "two dogs"]
        assert sorted(second) == ["two dogs", "yes"]
        assert sorted(last) == ["one", "three"]


def test_there_may_be_none() -> None:
    assert wrong_answers([asked("yes"), asked("yes", "Yes.")], 2, 0) == [[], []]
    assert wrong_answers([], 2, 0) == []
    assert normalise("Yes.") == normalise("yes")  # what the first line stands on
