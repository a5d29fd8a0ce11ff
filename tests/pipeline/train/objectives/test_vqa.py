"""The loss of answers, against transformers; and the role that answers."""

from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import BlipForQuestionAnswering

from models.blip.tokenizer import WordPiece
from models.roles.vqa import VqaModel
from pipeline.train.dataloader import Batch
from pipeline.train.finetune import start_finetuning
from tests.support.small_finetuning import ANSWERS, TEXTS, config_of, losses_of


def test_the_loss_of_answers_is_that_of_transformers_one_by_one(
    pretrained: Path, annotated: Batch, words: WordPiece, tmp_path: Path
) -> None:
    objective = start_finetuning(config_of("vqa", pretrained))
    losses = losses_of(objective, annotated)
    written = objective.export(tmp_path)["vqa"]
    theirs = BlipForQuestionAnswering.from_pretrained(written).eval()
    pixels, total = objective.normalise(annotated.pixels), torch.zeros(())
    with torch.no_grad():
        for row, answers in enumerate(ANSWERS):
            ids = annotated.ids[row, annotated.mask[row]][None].clone()
            ids[:, 0] = words.enc_id
            states = theirs.vision_model(pixels[row, None]).last_hidden_state
            question = theirs.text_encoder(ids, encoder_hidden_states=states).last_hidden_state
            for answer in answers:
                read = torch.tensor([[words.dec_id, *words.encode([answer.text])[0], words.sep_id]])
                logits = theirs.text_decoder(read, encoder_hidden_states=question).logits
                each = F.cross_entropy(
                    logits[0, :-1], read[0, 1:], label_smoothing=0.1, reduction="sum"
                )
                total += answer.weight * each
    torch.testing.assert_close(losses["loss"].detach(), total / len(TEXTS), atol=1e-4, rtol=1e-5)
    assert losses.keys() == {"loss", "answers"}


def test_what_was_trained_answers(pretrained: Path, annotated: Batch, tmp_path: Path) -> None:
    written = start_finetuning(config_of("vqa", pretrained)).export(tmp_path)["vqa"]
    answerer = VqaModel.load(written, dtype="fp32")
    questions = ["what color is the ring?"] * len(TEXTS)
    assert len(answerer.answer(annotated.pixels, questions)) == len(TEXTS)
