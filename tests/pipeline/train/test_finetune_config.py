"""The config of a finetuning: which sections belong to which task."""

from pathlib import Path

import pytest

from pipeline.train.finetune_config import FinetuneConfig
from tests.support.small_finetuning import config_of


def test_what_a_task_does_not_learn_from_is_refused(pretrained: Path) -> None:
    fields = config_of("joint", pretrained).model_dump()
    fields["questions"] = {"sources": [{"annotations": "vqa.json"}]}
    assert FinetuneConfig.model_validate(fields).questions
    with pytest.raises(ValueError, match="questions join in a joint finetuning only, not in vqa"):
        FinetuneConfig.model_validate(fields | {"task": "vqa"})
    captions = {"captions": {"captioner": "c"}}
    assert FinetuneConfig.model_validate(config_of("filter", pretrained).model_dump() | captions)
    for task in ("captioner", "joint", "vqa"):
        with pytest.raises(ValueError, match=f"negatives of a filter; leave them out for {task}"):
            FinetuneConfig.model_validate(config_of(task, pretrained).model_dump() | captions)
    for task in ("vqa", "filter"):
        with pytest.raises(ValueError, match=f"leave it out for {task}"):
            config_of(task, pretrained, dialogue={"by": "match"})


def test_a_dialogue_is_learned_by_match_where_nothing_is_said(pretrained: Path) -> None:
    """It stands in the recipe that is written down, and so in what tells trainings apart."""
    written = config_of("dialogue", pretrained).model_dump()
    assert written["dialogue"] == {"by": "match", "wrong": 2}
    assert config_of("vqa", pretrained).dialogue is None
