"""Train the tiny captioner and filter on the toy world, and write them to models/tiny, in bf16.

    python scripts/make_tiny_checkpoint.py [FOLDER]

What is trained in FOLDER (default: runs/tiny) is not trained again.
"""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from flows.cli.display.progress import watch_training
from flows.study.recipe import StudyRecipe
from flows.study.stages import Tools
from flows.study.table1 import Study
from models.checkpoints import folder
from models.checkpoints.conversion import import_folder
from models.checkpoints.locate import SHIPPED
from pipeline.publish.cards import facts_of, write_model_card

TOY = [{"name": "the toy world (make tiny-checkpoint)", "rows": 10_000, "left_out": {}}]
RECIPE = Path(__file__).resolve().parents[1] / "flows" / "recipes" / "study" / "tiny.yaml"


def main() -> None:
    """Train, write, and print what the two can do."""
    parser = argparse.ArgumentParser(description="Train the tiny checkpoint.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/tiny"))
    study = Study(
        StudyRecipe.model_validate(yaml.safe_load(RECIPE.read_text())),
        parser.parse_args().folder,
        seed=0,
        watch=watch_training,
    )
    _, tools = study.first_round()
    shipped = Tools(SHIPPED["tiny-captioner"], SHIPPED["tiny-filter"])
    size_bytes = 0
    for trained, to in ((tools.captioner, shipped.captioner), (tools.filter, shipped.filter)):
        content = import_folder(trained).content
        halved = {name: tensor.to(torch.bfloat16) for name, tensor in content.tensors.items()}
        shutil.rmtree(to, ignore_errors=True)
        folder.write(to, replace(content, tensors=halved))
        write_model_card(to, facts_of(to, name=f"tiny {to.name}", sources=TOY))
        size_bytes += sum(path.stat().st_size for path in to.iterdir())
    print(f"{shipped.filter.parent}: {size_bytes / 1e6:.1f} MB")
    print(json.dumps(study.measure_tools(shipped), indent=2))


if __name__ == "__main__":
    main()
