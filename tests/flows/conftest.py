"""A toy world and recipes so small that rounds on it take seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.rounds.recipe import BootstrapRecipe
from pipeline.toy.world import ToyWorldConfig, write_toy_world

# So small a filter, hardly trained, scores all texts about alike: these keep a part of them.
THRESHOLD = {"web": 0.265, "synthetic": 0.28}
OFF = {"crop": None, "flip": 0, "operations": 0}
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "initializer_range": 0.1,
}


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Web, human and held-out pairs: 48, 36 and 24, in shards of 12."""
    folder = tmp_path_factory.mktemp("world")
    for seed, (name, samples, noise) in enumerate(
        [("web", 48, 0.5), ("human", 36, 0.0), ("held-out", 24, 0.0)]
    ):
        config = ToyWorldConfig(
            samples=samples, samples_per_shard=12, noise=noise, seed=seed, image_px=32
        )
        write_toy_world(folder / name, config)
    return folder


@pytest.fixture(scope="session")
def small_pretraining() -> dict[str, Any]:
    """A pre-training of four steps."""
    return {
        "model": {
            "size": "tiny", "image_size": 32, "words": 200, "dropout": 0,
            "vision": TOWER, "text": TOWER,
        },
        "augment": OFF,
        "loss": {"queue": 48},
        "rate": {"highest": 1e-3, "warmup_steps": 1, "decay": "cosine"},
        "step": {"epochs": None, "steps": 4, "batch_size": 12},
    }  # fmt: skip


@pytest.fixture(scope="session")
def small_rounds(
    small_world: Path, small_pretraining: dict[str, Any]
) -> Callable[..., BootstrapRecipe]:
    """Make a recipe of two rounds into a folder; keywords go over it."""
    tuned = {name: small_pretraining[name] for name in ("augment", "rate")}
    tuned |= {"model": {"dropout": 0}, "step": {"epochs": None, "steps": 2, "batch_size": 12}}

    def make(output: Path, **changes: Any) -> BootstrapRecipe:
        values: dict[str, Any] = {
            "output": str(output),
            "dtype": "fp32",
            "rounds": 2,
            "gate": "record",
            "web": {"urls": [str(small_world / "web")]},
            "human": {"urls": [str(small_world / "human")]},
            "held_out": {"urls": [str(small_world / "held-out")]},
            "pretrain": small_pretraining,
            "captioner": tuned,
            "filter": tuned | {"loss": {"queue": 48}},
            "clean": {"screen": {"min_side": 16}, "judge": {"threshold": THRESHOLD}},
            "evaluate": {"k": 8, "method": "greedy"},
            "data": {"max_tokens": 24, "lanes": 12},
            "save": {"every_steps": 1, "log_every": 1},
            "trackers": [],
            "launch": {"kind": "local"},
            "engine": {"kind": "local"},
        }
        return BootstrapRecipe.model_validate(values | changes)

    return make
