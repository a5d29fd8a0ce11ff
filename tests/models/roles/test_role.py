"""What all roles share: the right network, the limit of tokens, the precision, the first token."""

from pathlib import Path

import pytest
import torch
from transformers import BlipConfig

from models.blip.config import DtypeChoice, FirstToken, Role, Settings
from models.blip.tokenizer import WordPiece
from models.checkpoints import checkpoint
from models.checkpoints.checkpoint import Checkpoint
from models.checkpoints.locate import CheckpointError
from models.decoding.config import Decoding
from models.roles.captioner import BlipCaptioner
from models.roles.dialogue import MatchRanker
from models.roles.features import FeatureExtractor
from models.roles.filter import Filter
from models.roles.nlvr import NlvrModel
from models.roles.retrieval import Retriever
from models.roles.vqa import VqaModel


def test_a_network_of_another_role_is_refused(
    caption_checkpoint: Checkpoint, match_checkpoint: Checkpoint
) -> None:
    for kind in (Filter, Retriever, MatchRanker, NlvrModel, VqaModel, FeatureExtractor):
        with pytest.raises(CheckpointError, match="loaded as a CaptionNetwork; expected a "):
            kind(caption_checkpoint, None)
    with pytest.raises(CheckpointError, match="as a MatchNetwork; expected a CaptionNetwork"):
        BlipCaptioner(match_checkpoint, Decoding(), 0)


def test_a_folder_of_another_role_is_refused(folders: dict[Role, Path]) -> None:
    with pytest.raises(CheckpointError, match=r"holds a captioner.*expected a filter"):
        checkpoint.load(folders["captioner"], "filter")


def test_without_a_limit_a_text_may_fill_the_network(match_checkpoint: Checkpoint) -> None:
    positions = match_checkpoint.description.positions
    whole, short = MatchRanker(match_checkpoint), MatchRanker(match_checkpoint, 5)
    pieces = [[7] * 2 * positions]
    for model, tokens in ((whole, positions), (short, 5)):
        framed = model.frame(pieces, model.first_id)
        assert framed.ids.shape == (1, tokens)
        assert framed.ids[0, -1] == model.tokenizer.sep_id


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_states_are_in_the_precision_of_the_network(
    folders: dict[Role, Path], dtype: DtypeChoice
) -> None:
    model = Filter.load(folders["filter"], dtype=dtype)
    size = model.preprocess.height, model.preprocess.width
    states = model.image_states(torch.zeros(2, 3, *size, dtype=torch.uint8))
    assert states.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]


@pytest.mark.parametrize("name", ["cls", "enc"])
def test_the_settings_name_the_first_token(
    tmp_path: Path, config: BlipConfig, words: WordPiece, name: FirstToken
) -> None:
    settings = Settings(itm_first_token=name)
    checkpoint.create(tmp_path, "filter", config, words, seed=1, settings=settings)
    model = Filter.load(tmp_path, dtype="fp32")
    assert model.first_id == {"cls": words.cls_id, "enc": words.enc_id}[name]
