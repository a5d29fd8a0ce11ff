"""Cards: read by the hub's own library, and made of hostile values all the same."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard

from models.checkpoints import locate
from pipeline.publish.cards import ModelFacts, dataset_card, facts_of, write_model_card

HOSTILE = "`code` | cell\n---\nlicense: mit\n<script>alert(1)</script> \u202eevil\x1b[31m {{ 7*7 }}"


def facts(**changed: Any) -> ModelFacts:
    known: dict[str, Any] = {
        "name": "mine",
        "role": "captioner",
        "digest": "ab" * 32,
        "image_px": 384,
        "parameters": 1_234_567,
    }
    return ModelFacts(**(known | changed))


def about(**changed: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "form": "parquet",
        "fingerprint": "f" * 64,
        "snapshot": "5" * 32,
        "view": None,
        "rows": 12_345,
        "images": "as they came in",
        "files": "data/*.parquet",
        "models": {"filter": {"name": "f", "digest": "d"}},
        "thresholds": {"web": 0.5},
        "statistics": {
            "samples_in": 20_000,
            "kept": 12_345,
            "filtered": 7_000,
            "rejected": 655,
            "rejected_by_reason": {"image_blank": 655},
            "texts": {"web": {"in": 19_345, "kept": 12_345}},
            "histograms": {"web": {"edges": [], "counts": list(range(20))}},
        },
    }
    return known | changed


@pytest.mark.parametrize("role", ["captioner", "filter", "vqa", "nlvr", "pretrain"])
def test_a_model_card_says_what_it_is_and_who_loads_it(tmp_path: Path, role: Any) -> None:
    sources = [{"name": "shards:abc", "rows": 1_000, "left_out": {"image_blank": 3}}]
    path = write_model_card(
        tmp_path, facts(role=role, start="runs/p", sources=sources, losses={"lm": 1.23456})
    )
    card = ModelCard.load(path)
    tasks = {"captioner": "image-to-text", "vqa": "visual-question-answering"}
    assert card.data.to_dict().get("pipeline_tag") == tasks.get(role, card.data.pipeline_tag)
    assert card.data.license is None  # that is for whoever publishes it
    assert role in card.data.tags
    assert "1,234,567 parameters" in card.text
    assert "| `shards:abc` | 1,000 |" in card.text
    assert "| lm | 1.235 |" in card.text
    loaded = role in ("captioner", "filter", "vqa")
    assert ("from transformers import" in card.text) == loaded
    assert card.data.library_name == ("transformers" if loaded else "capfilt")


def test_a_model_of_dialogues_is_used_in_one(tmp_path: Path) -> None:
    path = write_model_card(
        tmp_path, facts(role="filter", training={"training": "finetuning: dialogue"})
    )
    assert "capfilt ask photo.jpg" in path.read_text()
    assert "capfilt match" not in path.read_text()


def test_hostile_names_stay_in_their_cell(tmp_path: Path) -> None:
    sources = [{"name": HOSTILE, "rows": 1, "left_out": {HOSTILE: 1}}]
    path = write_model_card(
        tmp_path, facts(name=HOSTILE, start=HOSTILE, sources=sources, training={"task": HOSTILE})
    )
    check_harmless(path.read_text())
    card = dataset_card(
        about(
            view=HOSTILE,
            models={"filter": {"name": HOSTILE, "digest": ""}},
            thresholds={HOSTILE: 0.5},
            statistics=about()["statistics"] | {"texts": {HOSTILE: {"in": 1, "kept": 0}}},
        )
    )
    check_harmless(card)


def check_harmless(card: str) -> None:
    """The head is one YAML document without what was slipped in; no cell is broken or runs."""
    _, head, body = card.split("---\n", 2)
    assert "license" not in yaml.safe_load(head)
    for line in body.splitlines():
        outside = "".join(line.split("`")[::2])  # what does not stand between backticks
        assert "<script>" not in outside
        assert "\x1b" not in line
        assert "\u202e" not in line
        if line.startswith("|") and "alert" in line:
            assert line.endswith("|")
            assert line.count("`") % 2 == 0


def test_nothing_known_is_said_to_be_so(tmp_path: Path) -> None:
    card = ModelCard.load(write_model_card(tmp_path, facts()))
    assert "Not recorded" in card.text


def test_a_shipped_checkpoint_describes_itself() -> None:
    found = facts_of(locate.SHIPPED["tiny-filter"])
    assert (found.role, found.name, found.image_px) == ("filter", "filter", 32)
    assert found.parameters > 100_000


@pytest.mark.parametrize(
    ("rows", "category"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1_000, "1K<n<10K"),
        (12_345, "10K<n<100K"),
        (999_999_999, "100M<n<1B"),
        (5_000_000_000, "n>1T"),
    ],
)
def test_a_dataset_card_has_its_size(rows: int, category: str) -> None:
    data = DatasetCard(dataset_card(about(rows=rows))).data.to_dict()
    assert data["size_categories"] == [category]


@pytest.mark.parametrize("form", ["run", "webdataset", "parquet", "index"])
def test_a_dataset_card_tells_its_numbers(form: str) -> None:
    card = DatasetCard(dataset_card(about(form=form, files=None if form == "run" else "data/*")))
    assert ("configs" in card.data.to_dict()) == (form != "run")
    assert "| 20,000 | 12,345 | 7,000 | 655 |" in card.text
    assert "| `web` | 19,345 | 12,345 | 63.8% |" in card.text
    assert "| `web` | 6 | 22 | 38 | 54 | 70 |" in card.text
