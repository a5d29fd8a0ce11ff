"""A dialogue about an image as one text, for training and for ranking alike (BLIP §5.5):

[ENC] caption [SEP] question 1 answer 1 [SEP] … question 2 answer 2 [SEP] question [SEP]
"""

from collections.abc import Sequence
from dataclasses import dataclass

from models.framing import FRAME
from models.roles.vqa import normalise_question
from models.tokenizer import WordPiece, normalise


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A caption, the questions and answers so far, oldest first, and the question to answer."""

    caption: str
    history: Sequence[tuple[str, str]]
    question: str


def compose(words: WordPiece, max_tokens: int, dialogue: Dialogue) -> list[int]:
    """Write a dialogue as ids between the first token and the last [SEP].

    The oldest rounds fall away, whole, until it fits `max_tokens`, special ones included; then the
    caption is cut, then the question.
    """
    texts = [normalise(dialogue.caption), normalise_question(dialogue.question)]
    for question, answer in dialogue.history:
        texts.append(f"{normalise_question(question)} {normalise(answer)}")
    caption, question_ids, *rounds = words.encode(texts)
    room = max_tokens - FRAME
    question_ids = question_ids[:room]
    end = [words.sep_id]
    room -= len(question_ids)
    opening = [*caption[: max(room - 1, 0)], *end][:room]  # empty where nothing is left
    room -= len(opening)
    kept: list[int] = []
    for ids in reversed(rounds):
        if len(ids) + 1 + len(kept) > room:
            break
        kept = [*ids, *end, *kept]
    return [*opening, *kept, *question_ids]
