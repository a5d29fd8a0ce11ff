"""VQA accuracy as the official evaluator computes it, quirks included (GT-Vision-Lab/VQA).

An answer counts fully where three other people gave it. What looks odd here is part of the metric:
published numbers stand on it.
"""

import re
from collections.abc import Iterator, Sequence

_AGREEING = 3  # so many others who say the same make an answer right
_PERIODS = 32  # the evaluator passes re.UNICODE where re.sub takes how many to replace

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_WITH_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_ARTICLES = {"a", "an", "the"}
_COUNTED = "zero one two three four five six seven eight nine ten"
_NUMBERS = {word: str(number) for number, word in enumerate(_COUNTED.split())} | {"none": "0"}

# Words that may come without one of their apostrophes. Those that would then be another word
# (she'd, we'll) are not among them.
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't
    mightn't've must've mustn't needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're
    you've
"""


def _short_of_one(word: str) -> Iterator[str]:
    """Yield a word without each of its apostrophes in turn."""
    for index, sign in enumerate(word):
        if sign == "'":
            yield word[:index] + word[index + 1 :]


CONTRACTIONS = {short: word for word in _CONTRACTED.split() for short in _short_of_one(word)}
CONTRACTIONS["somebody'd"] = "somebodyd"  # the other way round, as in the evaluator


def normalise(answer: str) -> str:
    """Write an answer as the evaluator compares it: signs, number words, articles, apostrophes."""
    words = [_NUMBERS.get(word, word) for word in _without_signs(_line(answer)).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def accuracy(answer: str, references: Sequence[str]) -> float:
    """Compute the accuracy, in [0, 1], of an answer by those that people gave, usually ten.

    It is the mean over all ways to leave one of them out. All is normalised only where people did
    not all say the same.
    """
    if not references:
        raise ValueError("accuracy needs the answers that people gave; there are none")
    write = normalise if len(set(references)) > 1 else _line
    matching = [write(reference) == write(answer) for reference in references]
    total = sum(matching)
    return sum(min(1.0, (total - is_match) / _AGREEING) for is_match in matching) / len(references)


def _line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _without_signs(text: str) -> str:
    """Drop a sign that has a blank beside it somewhere, and put a blank for any other.

    A number with a comma drops them all.
    """
    drops_all = _NUMBER_WITH_COMMA.search(text) is not None
    left = text
    for sign in _PUNCTUATION:
        stands_apart = f"{sign} " in text or f" {sign}" in text
        left = left.replace(sign, "" if drops_all or stands_apart else " ")
    return _PERIOD.sub("", left, count=_PERIODS)
