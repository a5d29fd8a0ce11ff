"""Other makers' models in a whole cleaning: they say what transformers itself says of them."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoModel, AutoProcessor

from models.captioners.config import TransformersCaptionerConfig
from models.captioners.opening import open_captioner
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from shards.query import connect
from shards.run.run import Run
from shards.run.snapshot import open_snapshot
from shards.run.verify.run import verify_run
from shards.schema import ALL_SCHEMAS
from tests.support.driving import InProcess
from tests.support.tars import read_members
from tests.support.tiny_guests import florence2, smolvlm
from tests.support.tiny_scorers import siglip

SAMPLES = 8


@pytest.fixture(scope="session")
def guests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of two captioners and a scorer, and a few pairs."""
    folder = tmp_path_factory.mktemp("guests")
    for build in (florence2, smolvlm, siglip):
        build(folder / build.__name__)
    write_toy_world(folder / "web", ToyWorldConfig(samples=SAMPLES, samples_per_shard=4))
    return folder


def recipe_of(guests: Path, **changes: Any) -> dict[str, Any]:
    return {
        "input": {"urls": [str(guests / "web")]},
        "output": "run",
        "dtype": "fp32",
        "seed": 3,
        "caption": [
            {
                "kind": "transformers",
                "name": "florence",
                "model": str(guests / "florence2"),
                "prompt": "<CAPTION>",
                "method": "greedy",
                "max_tokens": 8,
            },
            {
                "kind": "transformers",
                "name": "smol",
                "model": str(guests / "smolvlm"),
                "prompt": "Describe this picture in one sentence .",
                "candidates": 2,
                "max_tokens": 8,
            },
        ],
        "score": {"kind": "dual_encoder", "name": "siglip", "model": str(guests / "siglip")},
        "judge": {
            "by": "siglip.cosine",
            "threshold": {"web": 0.0, "florence": 0.0, "smol": 0.0},
        },
        "engine": {"kind": "local", "batch_size": 3},
        **changes,
    }


def clean(capfilt: InProcess, recipe: dict[str, Any], *flags: str) -> dict[str, Any]:
    path = capfilt.home / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    done = capfilt.run("clean", path, "--direct", "--json", *flags)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def rows_of(run: Run, query: str) -> list[Any]:
    with connect(run, open_snapshot(run).shards, ALL_SCHEMAS) as connection:
        return connection.execute(query).fetchall()


def pictures_of(guests: Path) -> dict[str, Image.Image]:
    """The pictures, by the key that seeds a caption."""
    import io

    return {
        f"{tar.stem}/{Path(name).stem}": Image.open(io.BytesIO(data)).convert("RGB")
        for tar in sorted((guests / "web").glob("*.tar"))
        for name, data in read_members(tar)
        if Path(name).suffix in (".jpg", ".png", ".webp")
    }


def test_a_whole_cleaning_by_guests(capfilt: InProcess, guests: Path) -> None:
    said = clean(capfilt, recipe_of(guests))
    run = Run.open(str(capfilt.home / "run"))
    assert verify_run(run).problems == ()
    given = {origin: texts["in"] for origin, texts in said["texts"].items()}
    assert (given["florence"], given["smol"]) == (SAMPLES, 2 * SAMPLES)
    numbers = rows_of(run, "SELECT origin, text_no FROM texts WHERE origin <> 'web'")
    assert set(numbers) == {("florence", 1), ("smol", 2), ("smol", 3)}
    columns = "count(itm), count(itc), count(tokens), count(truncated), count(*)"
    ((itm, itc, tokens, truncated, texts),) = rows_of(run, f"SELECT {columns} FROM texts")
    assert (itm, itc, tokens, truncated) == (0, 0, texts, texts)
    written = rows_of(
        run,
        "SELECT shard || '/' || key, text FROM texts JOIN samples USING (shard, index)"
        " WHERE origin = 'florence' ORDER BY ALL",
    )
    section = TransformersCaptionerConfig.model_validate(recipe_of(guests)["caption"][0])
    alone = open_captioner(section, seed=3, dtype="fp32")
    pictures = pictures_of(guests)
    assert [key for key, _ in written] == sorted(pictures)
    for key, text in written:
        assert [[text]] == [
            [each.text for each in one]
            for one in alone.caption([alone.prepare(pictures[key])], [key], 1)
        ]
    assert len({text for _, text in written}) > 1


def test_scores_are_transformers_own(capfilt: InProcess, guests: Path) -> None:
    clean(capfilt, recipe_of(guests))
    run = Run.open(str(capfilt.home / "run"))
    model = AutoModel.from_pretrained(guests / "siglip")
    processor = AutoProcessor.from_pretrained(guests / "siglip", backend="pil")
    pictures = pictures_of(guests)
    scored = rows_of(
        run,
        "SELECT shard || '/' || key, text, s.name, value, d.reason FROM texts"
        " JOIN samples USING (shard, index) JOIN scores s USING (shard, index, text_no)"
        " JOIN decisions d USING (shard, index, text_no)",
    )
    assert Counter(name for *_, name, _, _ in scored).keys() == {"cosine", "prob"}
    with torch.inference_mode():
        for key, text, name, value, reason in scored:
            inputs = processor(
                text=[text],
                images=[pictures[key]],
                padding="max_length",
                truncation=True,
                max_length=64,
                return_tensors="pt",
            )
            told = model(**inputs)
            cosine = (told.image_embeds * told.text_embeds).sum()
            expected = cosine if name == "cosine" else told.logits_per_image[0, 0].sigmoid()
            assert value == pytest.approx(float(expected), abs=1e-5)
            if name == "cosine" and abs(value) > 1e-4:
                assert (reason == "score_below_threshold") == (value < 0)
    assert len({round(value, 3) for *_, value, _ in scored}) > SAMPLES


def test_a_run_goes_on_and_is_judged_again(capfilt: InProcess, guests: Path) -> None:
    whole = clean(capfilt, recipe_of(guests))
    shutil.move(capfilt.home / "run", capfilt.home / "whole")
    clean(capfilt, recipe_of(guests), "--part=1/2")
    again = clean(capfilt, recipe_of(guests, engine={"kind": "local", "batch_size": 1}))
    assert again["texts"] == whole["texts"]
    before, after = (Run.open(str(capfilt.home / name)) for name in ("whole", "run"))
    query = "SELECT * EXCLUDE (logprob) FROM texts ORDER BY ALL"
    assert rows_of(before, query) == rows_of(after, query)
    assert open_snapshot(before).id == open_snapshot(after).id
    rule = "siglip.prob >= 0.4 and origin != 'web'"
    judged = capfilt.run("judge", "run", "--name=wise", "--where", rule, "--json")
    assert judged.returncode == 0, judged.stderr
    assert verify_run(after).problems == ()
