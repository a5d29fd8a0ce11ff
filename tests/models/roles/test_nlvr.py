"""NLVR2: the original's probabilities, and results that do not depend on the batch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from models.blip.config import Role
from models.roles.nlvr import NlvrModel

Folders = Callable[[str, Role], Path]
Reference = Callable[[str], tuple[dict[str, Tensor], dict[str, float]]]


@pytest.fixture(scope="module")
def reasoner(original_folder: Folders) -> NlvrModel:
    return NlvrModel.load(original_folder("nlvr", "nlvr"), dtype="fp32")


@pytest.fixture(scope="module")
def facts(parity: Path) -> dict[str, Any]:
    return json.loads((parity / "nlvr.json").read_text())


def sides(images: Tensor, facts: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The first and the second picture of each statement."""
    count = len(facts["texts"])
    return images[:count], images[count : 2 * count]


def test_probabilities_equal_the_original(
    reasoner: NlvrModel, reference: Reference, facts: Any, images: Tensor
) -> None:
    expected = reference("nlvr")[0]["out.logits"].softmax(-1)[:, 1].tolist()
    found = reasoner.reason(*sides(images, facts), facts["texts"])
    assert found == pytest.approx(expected, abs=1e-4)


def test_results_do_not_depend_on_the_batch(
    reasoner: NlvrModel, facts: Any, images: Tensor
) -> None:
    texts, (left, right) = facts["texts"], sides(images, facts)
    together = reasoner.reason(left, right, texts)
    backwards = reasoner.reason(left.flip(0), right.flip(0), texts[::-1])[::-1]
    alone = [
        reasoner.reason(left[n : n + 1], right[n : n + 1], texts[n : n + 1])[0]
        for n in range(len(texts))
    ]
    assert alone == pytest.approx(together, abs=1e-5)
    assert backwards == pytest.approx(together, abs=1e-5)
    assert len({round(value, 5) for value in together}) == len(texts)


def test_both_images_and_their_order_count(reasoner: NlvrModel, images: Tensor) -> None:
    text = ["the left image show a red car"]
    first, second, third = images[:1], images[1:2], images[2:3]
    (one,), (turned,), (other,) = (
        reasoner.reason(left, right, text)
        for left, right in ((first, second), (second, first), (first, third))
    )
    assert abs(one - turned) > 1e-4
    assert abs(one - other) > 1e-4


def test_an_empty_batch_and_a_long_statement(reasoner: NlvrModel, images: Tensor) -> None:
    assert reasoner.reason(images[:0], images[:0], []) == []
    (long,), (cut,) = (
        reasoner.reason(images[:1], images[1:2], ["dog " * words]) for words in (500, 40)
    )
    assert long == pytest.approx(cut, abs=1e-6)


def test_bf16_is_close(
    original_folder: Folders, reasoner: NlvrModel, images: Tensor, facts: Any
) -> None:
    rough = NlvrModel.load(original_folder("nlvr", "nlvr"), dtype="bf16")
    exact, found = (one.reason(*sides(images, facts), facts["texts"]) for one in (reasoner, rough))
    assert found == pytest.approx(exact, abs=0.03)
