"""How a checkpoint is evaluated, by the flags that every evaluation has."""

from pathlib import Path

from flows.cli.evaluate.options import beside, config_of, folder_of, model_options
from flows.cli.options import device_of
from models.checkpoints import locate


def test_flags_become_the_config() -> None:
    config = config_of(7, 20, "bf16")
    assert (config.batch_size, config.max_tokens, config.dtype) == (7, 20, "bf16")
    assert config.device == device_of("auto")
    assert model_options("fp32") == {"dtype": "fp32", "device": config.device}


def test_pictures_lie_beside_their_file(tmp_path: Path) -> None:
    assert beside(str(tmp_path / "karpathy.json")) == str(tmp_path)
    assert beside("s3://bucket/coco/val.json") == "s3://bucket/coco"


def test_a_shipped_checkpoint_has_a_name() -> None:
    assert folder_of("tiny-filter", None) == locate.SHIPPED["tiny-filter"]
