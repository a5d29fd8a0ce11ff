"""Captions become rows, and a recipe that asks for more than a method can write is refused."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from models.blip.preprocess import Preprocess
from models.captioners.captioner import Refusal
from models.captioners.config import BlipCaptionerConfig
from models.roles.captioner import Caption
from pipeline.clean.caption import NamedCaptioner, caption


class Guest:
    """A captioner of other make."""

    digest = "d" * 64
    preprocess = Preprocess(4, 4)

    def caption(self, images: Any, keys: Any, count: int) -> list[list[Caption]]:
        assert len(images) == len(keys)
        return [[Caption(f"{key} {n}", -0.5 - n, n, n == 1) for n in range(count)] for key in keys]


def test_rows_count_from_one_in_each_sample() -> None:
    rows = caption(
        NamedCaptioner("synthetic", 2, Guest()),
        torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        ["a", "b"],
    )
    assert rows == [
        [
            {
                "text_no": n + 1,
                "origin": "synthetic",
                "author": "d" * 64,
                "text": f"{key} {n}",
                "logprob": -0.5 - n,
                "truncated": n == 1,
            }
            for n in range(2)
        ]
        for key in ("a", "b")
    ]


def test_no_pictures() -> None:
    assert (
        caption(NamedCaptioner("a", 2, Guest()), torch.zeros(0, 3, 4, 4, dtype=torch.uint8), [])
        == []
    )


def test_the_real_captioner(captioner: Any) -> None:
    side = captioner.preprocess.height
    images = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8)
    written = caption(NamedCaptioner("synthetic", 4, captioner), images, ["a", "b", "c"])
    rows = [one for one in written if not isinstance(one, Refusal)]
    assert [[row["text_no"] for row in one] for one in rows] == [[1, 2, 3, 4]] * 3
    assert {row["author"] for one in rows for row in one} == {captioner.digest}
    assert len({row["text"] for one in rows for row in one}) > 6
    assert all((row["logprob"] or 0) < 0 for one in rows for row in one)


@pytest.mark.parametrize(
    ("settings", "fits"),
    [
        ({"method": "greedy", "candidates": 1}, True),
        ({"method": "greedy", "candidates": 2}, False),
        ({"method": "beam", "beams": 3, "candidates": 3}, True),
        ({"method": "beam", "beams": 3, "candidates": 4}, False),
        ({"method": "nucleus", "candidates": 1000}, True),
        ({"method": "nucleus", "candidates": 1001}, False),
        ({"candidates": 0}, False),
    ],
)
def test_candidates_that_a_method_can_write(settings: dict[str, Any], fits: bool) -> None:
    if fits:
        BlipCaptionerConfig(model="m", **settings)
        return
    with pytest.raises(ValidationError, match="candidates"):
        BlipCaptionerConfig(model="m", **settings)


def test_defaults_are_capfilts() -> None:
    """Nucleus 0.9 without a cut by rank; BLIP section 4.3."""
    config = BlipCaptionerConfig(model="m")
    assert (config.method, config.top_p, config.top_k, config.candidates) == ("nucleus", 0.9, 0, 1)
    with pytest.raises(ValidationError, match="topp"):
        BlipCaptionerConfig.model_validate({"model": "m", "topp": 0.9})
