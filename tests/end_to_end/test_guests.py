"""Other makers' models in a whole cleaning: they say what transformers itself says of them."""

import io
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoModel, AutoProcessor

from models.captioners import chat
from models.captioners.captioner import Refusal
from models.captioners.config import TransformersCaptionerConfig
from models.captioners.opening import open_captioner
from models.guests.picture import encode
from pipeline.toy.world import ToyWorldConfig, write_toy_world
from shards.query.query import connect
from shards.run.run import Run
from shards.run.snapshot import open_snapshot
from shards.run.verify.run import verify_run
from shards.schema import ALL_SCHEMAS
from tests.support.chat_server import Fault, chatting
from tests.support.driving import Command, InProcess
from tests.support.tars import read_members
from tests.support.tiny_guests import florence2, pictures, smolvlm
from tests.support.tiny_scorers import siglip
from tests.support.toy_run import write_tar

SAMPLES = 8
STRUCK = 96  # the width of a picture that is never answered


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
        (captions,) = alone.caption([alone.prepare(pictures[key])], [key], 1)
        assert not isinstance(captions, Refusal)
        assert [text] == [each.text for each in captions]
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


def test_everything_at_once(capfilt: InProcess, guests: Path) -> None:
    """BLIP and a guest write, candidates come from a file, BLIP and a guest score."""
    keys = [key.partition("/")[2] for key in pictures_of(guests)]
    columns = {"key": [*keys, "nobody"], "text": [f"a text for {key}" for key in [*keys, "no"]]}
    columns["author"] = ["human"] * len(columns["key"])
    pq.write_table(pa.table(columns), capfilt.home / "more.parquet")
    given = recipe_of(guests)
    recipe = given | {
        "caption": [{"model": "tiny-captioner", "candidates": 2}, given["caption"][0]],
        "score": [{"model": "tiny-filter"}, given["score"]],
        "judge": {"threshold": {"florence": 0.0, "human": 1.0}, "prefer": ["web"]},
        "candidates": "more.parquet",
    }
    said = clean(capfilt, recipe)
    run = Run.open(str(capfilt.home / "run"))
    assert verify_run(run).problems == ()
    texts = {origin: counts["in"] for origin, counts in said["texts"].items()}
    web = texts.pop("web")
    assert texts == {"synthetic": 2 * SAMPLES, "florence": SAMPLES, "human": SAMPLES}
    assert said["candidates"] == {"human": {"given": SAMPLES + 1, "scored": SAMPLES}}
    ((scored, itm),) = rows_of(
        run, "SELECT (SELECT count(*) FROM scores), (SELECT count(itm) FROM texts)"
    )
    assert (scored, itm) == (2 * (web + 4 * SAMPLES), web + 4 * SAMPLES)
    kept = rows_of(
        run,
        "SELECT shard, index, list(DISTINCT origin) FROM texts JOIN decisions"
        " USING (shard, index, text_no) WHERE keep GROUP BY ALL",
    )
    assert all("web" not in origins or origins == ["web"] for *_, origins in kept)
    assert any("web" not in origins for *_, origins in kept)
    assert capfilt.run("report", "run").returncode == 0
    page = (capfilt.home / "run" / "report" / "index.html").read_text()
    assert all(name in page for name in ("florence", "human", "siglip.cosine", "not_preferred"))
    key = next(iter(pictures_of(guests)))
    told = capfilt.run("explain", "run", key, "--json")
    (sample,) = json.loads(told.stdout)["samples"]
    assert all(
        {"siglip.cosine", "siglip.prob"} <= text["scores"].keys() for text in sample["texts"]
    )
    assert capfilt.run("export", "run", "--to=exported").returncode == 0
    judged = capfilt.run("judge", "run", "--name=all", "--threshold=human=0", "--by=siglip.cosine")
    assert "no threshold for texts of origin" in judged.stderr
    judged = capfilt.run("judge", "run", "--name=all", "--threshold=human=0")
    assert judged.returncode == 0, judged.stderr
    assert verify_run(run).problems == ()


def test_a_server_whose_answers_fail(
    capfilt: InProcess, guests: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One picture is never answered: it is refused, the others are captioned, each once."""
    monkeypatch.setattr(chat, "_FIRST_PAUSE_S", 0.01)
    members = {f"{n}.png": encode(picture, "png") for n, picture in enumerate(pictures()[:5])}
    write_tar(capfilt.home / "web.tar", members)
    with chatting() as server:
        server.struck = lambda width: Fault(500) if width == STRUCK else None
        server.faults = [Fault(), Fault(429), Fault(503), Fault(cut="middle")]
        section = {
            "kind": "endpoint",
            "base_url": server.url,
            "model": "seer",
            "image_format": "png",
            "name": "seer",
            "concurrency": 2,
            "tries": 4,
        }
        judge = {"by": "siglip.cosine", "threshold": {"seer": -1, "web": -1}}
        sections = {"caption": section, "judge": judge, "input": {"urls": ["web.tar"]}}
        said = clean(capfilt, recipe_of(guests, **sections))
    run = Run.open(str(capfilt.home / "run"))
    assert verify_run(run).problems == ()
    assert said["texts"]["seer"]["in"] == 5
    assert run.about["not_reproducible"] == ["seer"]
    rows = rows_of(
        run,
        "SELECT width, text, d.reason, detail FROM texts JOIN samples USING (shard, index)"
        " JOIN decisions d USING (shard, index, text_no) WHERE origin = 'seer'",
    )
    for width, text, reason, detail in rows:
        is_struck = width == STRUCK
        assert (text == "", reason == "caption_refused") == (is_struck, is_struck)
        assert not is_struck or "seer: HTTP 500" in detail
    assert sum(width == STRUCK for width, *_ in rows) == 1
    assert len({text for _, text, *_ in rows}) == 5
    assert server.most_under_way <= 2


@pytest.mark.nightly
def test_on_ray(capfilt_ray: Command, capfilt: InProcess, guests: Path) -> None:
    """Two actors write the texts that one worker here writes; another scorer is added."""
    clean(capfilt, recipe_of(guests))
    path = capfilt_ray.home / "recipe.yaml"
    engine = {"kind": "ray", "actors": 2, "batch_size": 2}
    path.write_text(yaml.safe_dump(recipe_of(guests, output="on_ray", engine=engine)))
    done = capfilt_ray.run("clean", path, "--direct", "--json")
    assert done.returncode == 0, done.stderr
    here, there = (
        Run.open(str(path)) for path in (capfilt.home / "run", capfilt_ray.home / "on_ray")
    )
    assert verify_run(there).problems == ()
    assert open_snapshot(here).id == open_snapshot(there).id
    flags = ("--scorer", guests / "siglip", "--name=again", "--engine=ray", "--json")
    scored = capfilt_ray.run("score", "on_ray", *flags)
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["scores"] == ["again.cosine", "again.prob"]
    assert verify_run(there).problems == ()
