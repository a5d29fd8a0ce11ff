"""LM of a decoder over whole texts: what pre-training and captioners learn by (BLIP §3.2).

Shapes: B pairs of image and text, T tokens, P image states, V their width.
"""

from torch import Tensor

from models.blip.text import Images, TextDecoder
from models.training import losses
from models.training.contrast import in_fp32
from models.training.workers import ALONE, Workers


def language_loss(
    decoder: TextDecoder,
    ids: Tensor,
    mask: Tensor,
    images: Images,
    *,
    prompt: int = 0,
    smoothing: float = losses.LABEL_SMOOTHING,
    learned: Tensor | None = None,
    workers: Workers = ALONE,
) -> Tensor:
    """Predict each word of ids (B, T), which begin with [DEC], from those before it.

    Every token after the first counts, [SEP] too. Pads, where `mask` (B, T) is False, do not, nor
    the first `prompt` tokens after [DEC], which a captioner is given. The mean is over the tokens
    of all workers. `learned`: the places that count, by number, where they are known on the host.
    """
    hidden = decoder.bert.decode(ids[:, :-1], images)[:, prompt:]
    labels, counted = ids[:, 1 + prompt :].flatten(), mask[:, 1 + prompt :].bool().flatten()
    learned = counted.nonzero().squeeze(1) if learned is None else learned
    logits = decoder.logits(hidden.flatten(0, 1)[learned])  # a pad's would be thrown away
    with in_fp32(hidden):
        count = workers.mean(counted.sum().float())
        return losses.language(logits, labels[learned], smoothing, count)
