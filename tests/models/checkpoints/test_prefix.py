"""What stands before all names is found, and nothing else is taken away."""

import pytest

from models.checkpoints.prefix import common_prefix

NAMES = ("vision.weight", "vision.bias", "text.weight", "text.bias")


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "_orig_mod.", "module.model.", "net.", "blip/", "text."]
)
def test_what_all_names_share_is_found(prefix: str) -> None:
    assert common_prefix([prefix + name for name in NAMES], set(NAMES).__contains__) == prefix


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("text.weight", "text.bias"),  # a part that is missing is no reason to cut the rest
        ("module.vision.weight", "text.bias"),
        ("other.vision_.weight", "other.text_.weight"),  # nothing fits, whatever goes
    ],
)
def test_nothing_is_taken_from_names_that_fit_no_better_without(names: tuple[str, ...]) -> None:
    assert common_prefix(names, set(NAMES).__contains__) == ""


def test_a_tensor_that_is_missing_or_too_many_does_not_hide_the_prefix() -> None:
    names = [f"module.{name}" for name in (*NAMES[1:], "loss.weight")]
    assert common_prefix(names, set(NAMES).__contains__) == "module."


def test_a_very_long_name_costs_little() -> None:
    assert common_prefix(["x" * 1_000_000] * 2, set(NAMES).__contains__) == ""
