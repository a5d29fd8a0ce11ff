"""A recipe of two small rounds, and the world that they go over."""

from pathlib import Path
from typing import Any

import yaml

from pipeline.toy.world import ToyWorldConfig, write_toy_world

OFF = {"crop": None, "flip": 0, "operations": 0}
TOWER = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 2, "initializer_range": 0.1,
}  # fmt: skip
RATE = {"highest": 1e-3, "warmup_steps": 1, "decay": "cosine"}


def steps(number: int) -> dict[str, Any]:
    return {"epochs": None, "steps": number, "batch_size": 12}


def write_rounds_recipe(folder: Path) -> Path:
    """Write two rounds on a world of 108 pictures."""
    urls = {}
    for seed, (name, samples, noise) in enumerate(
        [("web", 48, 0.5), ("human", 36, 0.0), ("held_out", 24, 0.0)]
    ):
        config = ToyWorldConfig(
            samples=samples, samples_per_shard=12, noise=noise, seed=seed, image_px=32
        )
        write_toy_world(folder / name, config)
        urls[name] = {"urls": [str(folder / name)]}
    tuned = {"model": {"dropout": 0}, "augment": OFF, "rate": RATE, "step": steps(4)}
    model = {"size": "tiny", "image_size": 32, "words": 200, "dropout": 0}
    values = {
        **urls,
        "output": "out",
        "dtype": "fp32",
        "rounds": 2,
        "gate": "record",
        "pretrain": {
            "model": model | {"vision": TOWER, "text": TOWER},
            "augment": OFF,
            "loss": {"queue": 48},
            "rate": RATE,
            "step": steps(6),
        },
        "captioner": tuned,
        "filter": tuned | {"loss": {"queue": 48}},
        "clean": {
            "screen": {"min_side": 16},
            # the filter has learned nothing yet, and a round needs something to begin with
            "judge": {"threshold": {"web": 0.0, "synthetic": 0.0}},
        },
        "evaluate": {"k": 8, "method": "greedy"},
        "data": {"max_tokens": 24, "lanes": 12},
        "save": {"every_steps": 2, "log_every": 2},
        "trackers": [],
        "launch": {"kind": "local"},
        "engine": {"kind": "local"},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path
