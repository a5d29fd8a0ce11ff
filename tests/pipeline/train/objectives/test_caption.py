"""A captioner in finetuning: its loss, and who loads what is written."""

from pathlib import Path

import torch
from transformers import BlipForConditionalGeneration

from models.blip.tokenizer import WordPiece
from models.decoding.config import Decoding
from models.roles.captioner import BlipCaptioner
from pipeline.train.dataloader import Batch
from pipeline.train.finetune import start_finetuning
from tests.support.small_finetuning import PAIRS, config_of, learn, losses_of


def test_a_captioner_loads_elsewhere(pretrained: Path, pairs: Batch, tmp_path: Path) -> None:
    objective = start_finetuning(config_of("captioner", pretrained))
    learn(objective, pairs)
    written = objective.export(tmp_path)
    assert written.keys() == {"captioner"}
    theirs, told = BlipForConditionalGeneration.from_pretrained(
        written["captioner"], output_loading_info=True
    )
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    pixels, ids = objective.normalise(pairs.pixels), pairs.ids
    network = objective.network.eval()
    with torch.no_grad():
        expected = theirs.eval()(pixels, ids).logits
        torch.testing.assert_close(network(pixels, ids), expected, atol=1e-4, rtol=1e-4)
    ours = BlipCaptioner.load(written["captioner"], decoding=Decoding(), seed=1, dtype="fp32")
    captions = ours.caption(pairs.pixels, ["a", "b", "c", "d"], 1)
    assert [len(each) for each in captions] == [1] * PAIRS


def test_the_prompt_is_given_and_not_learned(
    pretrained: Path, pairs: Batch, words: WordPiece
) -> None:
    """Compare with the cross-entropy of the words after the prompt, one text at a time."""
    objective = start_finetuning(config_of("captioner", pretrained))
    losses = losses_of(objective, pairs)["lm"]
    prompt = words.encode(["a picture of "])[0]
    assert len(prompt) > 1
    network, pixels, terms = objective.network, objective.normalise(pairs.pixels), []
    for row in range(PAIRS):
        tokens = [words.dec_id, *prompt, *pairs.ids[row, 1:].tolist()]
        with torch.no_grad():
            logits = network(pixels[row : row + 1], torch.tensor([tokens[:-1]]))[0]
        logs = logits.log_softmax(-1)[len(prompt) :]
        labels = torch.tensor(tokens[1 + len(prompt) :])
        for log, label in zip(logs, labels, strict=True):
            terms.append(-(0.9 * log[label] + 0.1 * log.mean()))
    assert len(terms) == PAIRS * 5
    torch.testing.assert_close(losses, torch.stack(terms).mean(), atol=1e-4, rtol=1e-4)
