"""The recipes of trainings: where they run."""

import pytest

from flows.training.recipe import LaunchConfig


def test_one_process_has_one_worker() -> None:
    assert LaunchConfig(kind="local", workers=1).workers == 1
    assert LaunchConfig(kind="ray", workers=3).workers == 3
    with pytest.raises(ValueError, match="workers is 3, and kind local trains in one process"):
        LaunchConfig(kind="local", workers=3)


@pytest.mark.parametrize(
    "wrong", [{"workers": 0}, {"restarts": -1}, {"kind": "slurm"}, {"gpus": 1}]
)
def test_what_no_launcher_understands_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LaunchConfig.model_validate(wrong)
