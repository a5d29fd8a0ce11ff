"""More families of dual encoders: what they say is transformers' own, whatever the batch."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf

from models.scorers.config import DualEncoderConfig
from models.scorers.dual_encoder import DualEncoder
from tests.support.more_scorers import MORE_SCORERS
from tests.support.tiny_guests import WORDS, pictures

pytestmark = pytest.mark.nightly
TEXTS = ["a dog", "A Dog in this picture .", " ".join(WORDS[:20])]


def own_cosines(folder: Path) -> torch.Tensor:
    processor = hf.AutoProcessor.from_pretrained(folder, backend="pil")
    inputs = processor(text=TEXTS, images=pictures(), padding="longest", return_tensors="pt")
    network = hf.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        out = network(**inputs)
    if network.config.model_type == "align":
        return out.logits_per_image * network.temperature
    return out.logits_per_image / network.logit_scale.exp()


@pytest.mark.parametrize("name", sorted(MORE_SCORERS))
def test_scores_are_transformers_own(name: str, guest_folder: Callable[[str], Path]) -> None:
    folder = guest_folder(name)
    cosines = own_cosines(folder)
    assert cosines.std() > 0.02, "a scorer that says the same of all tests nothing"
    config = DualEncoderConfig(kind="dual_encoder", name="guest", model=str(folder))
    scorer = DualEncoder(config, dtype="fp32")
    batch = [scorer.prepare(picture) for picture in pictures()]
    together = torch.tensor(
        [[text.values[0] for text in row] for row in scorer.score(batch, [TEXTS] * 6)]
    )
    assert scorer.scores == ("cosine",)
    torch.testing.assert_close(together, cosines, atol=1e-5, rtol=0)
    for prepared, row in zip(batch, together, strict=True):
        for text, expected in zip(TEXTS, row, strict=True):
            alone = scorer.score([prepared], [[text]])[0][0].values[0]
            assert alone == pytest.approx(expected.item(), abs=1e-5)
