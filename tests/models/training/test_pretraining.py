"""The pre-training step against the original's numbers, and what it must survive."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BlipConfig

from models.blip.config import blip_config
from models.blip.tokenizer import WordPiece
from models.checkpoints.original import read_original, rename
from models.training.config import Rule
from models.training.contrast import Pairs, project_and_normalize
from models.training.momentum import FeatureQueue
from models.training.pretraining import PretrainNetwork, StepResult, StepSettings

References = tuple[dict[str, Tensor], dict[str, float]]
GENERATOR = torch.Generator().manual_seed(0)


def load(parity: Path, config: BlipConfig) -> tuple[PretrainNetwork, FeatureQueue]:
    tensors = read_original(parity / "pretrain.pth")
    network = PretrainNetwork(config)
    names = set(network.state_dict()) | set(network.shared())
    network.load_state_dict({name: tensors[name] for name in names})
    return network.eval(), FeatureQueue.of(tensors)


class Run:
    """The reference's steps on our network, and what it names."""

    def __init__(self, parity: Path, config: BlipConfig, batch: Pairs, reference: References):
        self.values, self.limits = reference
        self.facts: dict[str, Any] = json.loads((parity / "pretrain.json").read_text())
        words = self.facts["config"]["tokenizer"]
        self.settings = StepSettings(
            words["enc_id"], words["bos_id"], alpha=self.facts["alpha"], negatives="original"
        )
        self.config = config
        self.network, self.queue = load(parity, config)
        self.batch = batch

    def step(self, batch: Pairs | None = None, prefix: str = "", **change: Any) -> StepResult:
        given = tuple(
            self.values[f"in.{prefix}{name}"]
            for name in ("neg_image_for_text", "neg_text_for_image")
        )
        settings = replace(self.settings, **change)
        return self.network(
            batch or self.batch, self.queue, settings, GENERATOR, fixed_negatives=given
        )

    def check(self, name: str, found: Tensor) -> None:
        expected = self.values[f"out.{name}"]
        atol = self.limits.get(f"out.{name}", 0)
        torch.testing.assert_close(found.detach(), expected, atol=atol, rtol=1e-5, msg=name)

    def check_prefix(self, prefix: str, tensors: dict[str, Tensor]) -> None:
        names = [name for name in self.values if name.startswith(f"out.{prefix}")]
        assert len(names) > 5
        for name in names:
            ours = canonical(self.network, rename(name.removeprefix(f"out.{prefix}")))
            self.check(name.removeprefix("out."), tensors[ours])


def canonical(network: PretrainNetwork, name: str) -> str:
    return network.shared().get(name, name)


@pytest.fixture(scope="module")
def batch(parity: Path, images: Tensor, normalise: Callable[[Tensor], Tensor]) -> Pairs:
    values = load_file(parity / "pretrain.safetensors")
    mask = values["in.attention_mask"].bool()
    return Pairs(normalise(images[: len(mask)]), values["in.input_ids_cls"], mask)


@pytest.fixture
def run(
    parity: Path,
    batch: Pairs,
    original_config: Callable[[str], BlipConfig],
    reference: Callable[[str], References],
) -> Run:
    return Run(parity, original_config("pretrain"), batch, reference("pretrain"))


def test_losses_weights_queue_and_momentum_are_the_originals(run: Run) -> None:
    found = run.step()
    run.check("loss_ita", found.itc)
    run.check("loss_itm", found.itm)
    run.check("loss_lm", found.lm)
    run.check("weights_t2i", found.negatives.image_weights.exp())
    run.check("weights_i2t", found.negatives.text_weights.exp())
    for name in ("image_queue", "text_queue", "queue_ptr"):
        run.check(name, getattr(run.queue, name))
    run.check_prefix("momentum_after.", run.network.state_dict())


def test_gradients_are_the_originals(run: Run) -> None:
    run.step().total.backward()
    found = gradients(run.network)
    run.check_prefix("grad.", found)
    names = {canonical(run.network, rename(name)): name for name in run.facts["grad_norms"]}
    for ours, name in names.items():
        if not name.endswith("key.bias"):  # the true gradient is 0
            expected = run.facts["grad_norms"][name]["fp32"]
            assert float(found[ours].norm()) == pytest.approx(expected, rel=1e-3), name
    total = torch.stack([gradient.norm() for gradient in found.values()]).norm()
    assert float(total) == pytest.approx(run.facts["grad_norm_total"]["fp32"], rel=1e-3)


def test_the_second_step_is_the_originals(run: Run) -> None:
    facts = run.facts["adamw"]
    trained = [p for p in run.network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        trained,
        lr=facts["lr"],
        betas=tuple(facts["betas"]),
        eps=facts["eps"],
        weight_decay=facts["weight_decay"],
    )
    run.step().total.backward()
    optimiser.step()
    run.check_prefix("after_adamw.", run.network.state_dict())
    flipped = replace(run.batch, pixels=run.batch.pixels.flip(-1))
    found = run.step(flipped, "step2_")
    run.check("step2_loss_ita", found.itc)
    run.check("step2_loss_itm", found.itm)
    run.check("step2_loss_lm", found.lm)
    run.check("step2_queue_ptr", run.queue.queue_ptr)


def test_without_soft_targets_the_loss_is_the_originals(run: Run) -> None:
    run.check("alpha0_loss_ita", run.step(alpha=0.0).itc)


def test_every_value_of_the_reference_is_tested(run: Run) -> None:
    rest = {name for name in run.values if name.startswith("out.")}
    for prefix in ("grad.", "momentum_after.", "after_adamw."):
        rest = {name for name in rest if not name.startswith(f"out.{prefix}")}
    tested = ["loss_ita", "loss_itm", "loss_lm", "weights_t2i", "weights_i2t"]
    tested += ["image_queue", "text_queue", "queue_ptr", "alpha0_loss_ita"]
    tested += [f"step2_{name}" for name in ("loss_ita", "loss_itm", "loss_lm", "queue_ptr")]
    assert rest == {f"out.{name}" for name in tested}


def test_recomputed_layers_give_equal_gradients(run: Run, parity: Path) -> None:
    run.step().total.backward()
    expected = gradients(run.network)
    run.network, run.queue = load(parity, run.config)
    run.network.vision_model.encoder.recomputed = 1
    run.network.text_encoder.encoder.recomputed = 2
    run.network.text_decoder.bert.encoder.recomputed = 1
    run.step().total.backward()
    for name, found in gradients(run.network).items():
        torch.testing.assert_close(found, expected[name], atol=1e-6, rtol=1e-5, msg=name)


def test_autocast_keeps_losses_in_fp32(run: Run) -> None:
    exact = run.step()
    with torch.autocast("cpu", torch.bfloat16):
        rough = run.step()
    for name in ("itc", "itm", "lm"):
        assert getattr(rough, name).dtype == torch.float32
        torch.testing.assert_close(getattr(rough, name), getattr(exact, name), rtol=0.1, atol=0)
    rough.total.backward()
    assert all(gradient.isfinite().all() for gradient in gradients(run.network).values())


def test_a_saved_network_holds_shared_tensors_once(run: Run, tmp_path: Path, parity: Path) -> None:
    state = run.network.state_dict() | run.queue.state_dict()
    assert not [name for name in state if name in run.network.shared()]
    save_file(state, tmp_path / "model.safetensors")
    tensors = load_file(tmp_path / "model.safetensors")
    again, _ = load(parity, run.config)
    for parameter in again.parameters():
        torch.nn.init.zeros_(parameter)
    again.load_state_dict({name: tensors[name] for name in again.state_dict()})
    queue = FeatureQueue.of(tensors)
    given = run.values["in.neg_image_for_text"], run.values["in.neg_text_for_image"]
    found = again(run.batch, queue, run.settings, GENERATOR, fixed_negatives=given)
    assert torch.equal(found.total, run.step().total)


def test_decoder_and_encoder_share_all_but_self_attention() -> None:
    config = blip_config("base", vocab_size=30524, sep_id=102, pad_id=0, image_size=224)
    with torch.device("meta"):
        network = PretrainNetwork(config)
    trained = [p for p in network.parameters() if p.requires_grad]
    assert round(sum(p.numel() for p in trained) / 1e6) == 252  # BLIP, Table 3
    own = {id(p) for p in network.text_decoder.bert.parameters()}
    own -= {id(p) for p in network.text_encoder.parameters()}
    layers = network.text_decoder.bert.encoder.layers()
    assert own == {id(p) for layer in layers for p in layer.attention.parameters()}


def gradients(network: PretrainNetwork) -> dict[str, Tensor]:
    return {
        name: parameter.grad
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }


def fresh(config: BlipConfig, places: int = 10) -> tuple[PretrainNetwork, FeatureQueue]:
    torch.manual_seed(5)
    network = PretrainNetwork(config)
    for name, parameter in network.named_parameters():
        if "norm" not in name.lower():
            torch.nn.init.normal_(parameter, std=0.05)
    network.start()
    return network.eval(), FeatureQueue(config.image_text_hidden_size, places)


def pairs(words: WordPiece, count: int) -> Pairs:
    """Random images and texts; the texts are of 3 to 8 tokens."""
    generator = torch.Generator().manual_seed(count)
    lengths = torch.randint(3, 9, (count, 1), generator=generator)
    mask = torch.arange(8) < lengths
    ids = torch.randint(5, 60, (count, 8), generator=generator)
    ids[:, 0] = words.cls_id
    ids = ids.scatter(1, lengths - 1, words.sep_id).masked_fill(~mask, words.pad_id)
    pixels = torch.randn(count, 3, 64, 64, generator=generator)
    return Pairs(pixels, ids, mask, torch.arange(count))


def test_the_queue_need_not_divide_by_the_batch(config: BlipConfig, words: WordPiece) -> None:
    network, queue = fresh(config, places=5)
    settings = StepSettings(words.enc_id, words.dec_id)
    for count in (2, 1, 4, 7, 3):
        found = network(pairs(words, count), queue, settings, GENERATOR)
        assert found.total.isfinite()
    assert queue.queue_ptr.item() == 17 % 5
    assert queue.queue_valid.item() == 5


def test_an_empty_queue_counts_for_nothing(config: BlipConfig, words: WordPiece) -> None:
    network, large = fresh(config, places=50)
    small = FeatureQueue(config.image_text_hidden_size, 1)
    settings = StepSettings(words.enc_id, words.dec_id)
    batch, given = pairs(words, 4), (torch.tensor([1, 2, 3, 0]),) * 2
    first = network(batch, large, settings, GENERATOR, fixed_negatives=given)
    network.start()
    second = network(batch, small, settings, GENERATOR, fixed_negatives=given)
    torch.testing.assert_close(first.itc, second.itc)
    third = network(
        batch, large, settings, GENERATOR, fixed_negatives=given
    )  # the same pairs again
    assert third.itc > first.itc + 0.1


def test_drawn_negatives_are_never_of_the_same_image_or_text(
    config: BlipConfig, words: WordPiece
) -> None:
    network, queue = fresh(config)
    batch = replace(
        pairs(words, 6),
        image_ids=torch.tensor([7, 7, 8, 9, 9, 9]),
        text_hashes=torch.tensor([-4, 3, -4, 5, 6, 7]),
    )
    assert batch.image_ids is not None
    assert batch.text_hashes is not None
    settings = StepSettings(words.enc_id, words.dec_id)
    for _ in range(10):
        found = network(batch, queue, settings, GENERATOR)
        for drawn in (found.negatives.images, found.negatives.texts):
            assert drawn.valid.all()
            assert (batch.image_ids[drawn.index] != batch.image_ids).all()
            assert (batch.text_hashes[drawn.index] != batch.text_hashes).all()


def with_numbers(config: BlipConfig, places: int = 10) -> FeatureQueue:
    return FeatureQueue(config.image_text_hidden_size, places, ids=True, hashes=True)


def test_equal_pairs_are_no_negatives_of_itc(config: BlipConfig, words: WordPiece) -> None:
    """Of four equal pairs nothing can be told apart: ln 4, unless they are left out."""
    one = pairs(words, 1)
    rows = torch.zeros(4, dtype=torch.long)
    batch = Pairs(one.pixels[rows], one.ids[rows], one.mask[rows], rows, rows)
    settings = StepSettings(words.enc_id, words.dec_id, alpha=0)
    network, queue = fresh(config)
    assert network(batch, queue, settings, GENERATOR).itc.item() == pytest.approx(math.log(4))
    network, _ = fresh(config)
    queue = with_numbers(config)
    for _ in range(2):  # the second batch meets the first one in the queue
        assert network(batch, queue, settings, GENERATOR).itc.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_what_is_left_out_of_itc_is_as_if_not_there(
    config: BlipConfig, words: WordPiece, alpha: float
) -> None:
    """A batch of all pairs that a row may see gives the row's loss, with the queue or without."""
    settings = StepSettings(words.enc_id, words.dec_id, alpha=alpha, momentum=1)
    ids, hashes = torch.tensor([7, 7, 8, 9, 3]), torch.tensor([-4, 3, -4, 5, 6])
    batch = replace(pairs(words, 5), image_ids=ids, text_hashes=hashes)
    network, _ = fresh(config)
    found = network(batch, with_numbers(config), settings, GENERATOR).itc
    images = project_and_normalize(network.vision_proj, network.vision_model(batch.pixels))
    states = network.text_encoder.encode(batch.ids, batch.mask)
    texts = project_and_normalize(network.text_proj, states)
    expected = 0.0
    for row in range(5):
        seen = [
            k for k in range(5) if k == row or (ids[k] != ids[row] and hashes[k] != hashes[row])
        ]
        assert len(seen) == (3, 4, 4, 5, 5)[row]
        for one, others in ((images[row], texts[seen]), (texts[row], images[seen])):
            share = (others @ one / network.temp).softmax(0)  # the copies are equal
            wanted = alpha * share + (1 - alpha) * (torch.tensor(seen) == row)
            expected -= (wanted * share.log()).sum().item() / 10
    assert found.item() == pytest.approx(expected, rel=1e-5)
    again = network(batch, queue := with_numbers(config), settings, GENERATOR).itc
    # the same batch waits in the queue: each row's own pair, and what equals it, is left out
    third = network(batch, queue, settings, GENERATOR).itc
    assert again.item() == pytest.approx(expected, rel=1e-5)
    assert third.item() != pytest.approx(expected, rel=1e-3)


def test_a_queue_with_ids_needs_those_of_the_batch(config: BlipConfig, words: WordPiece) -> None:
    network, _ = fresh(config)
    with pytest.raises(ValueError, match="needs those of the batch"):
        network(
            pairs(words, 3),
            with_numbers(config),
            StepSettings(words.enc_id, words.dec_id),
            GENERATOR,
        )


def test_the_same_seed_draws_the_same(config: BlipConfig, words: WordPiece) -> None:
    network, queue = fresh(config)
    settings = StepSettings(words.enc_id, words.dec_id)
    drawn = [
        network(pairs(words, 12), queue, settings, torch.Generator().manual_seed(seed))
        for seed in (3, 3, 4)
    ]
    indices = [torch.cat([one.negatives.images.index, one.negatives.texts.index]) for one in drawn]
    assert torch.equal(indices[0], indices[1])
    assert not torch.equal(indices[0], indices[2])


def test_a_lone_pair_has_no_negative_and_still_trains(config: BlipConfig, words: WordPiece) -> None:
    network, queue = fresh(config)
    rules: tuple[Rule, ...] = ("masked", "original")
    for rule in rules:
        settings = StepSettings(words.enc_id, words.dec_id, negatives=rule)
        found = network(pairs(words, 1), queue, settings, GENERATOR)
        assert not found.negatives.images.valid.any()
        assert not found.negatives.texts.valid.any()
        found.total.backward()
        for name, gradient in gradients(network).items():
            assert gradient.isfinite().all(), name


def test_a_pair_without_negatives_counts_as_a_match_alone(
    config: BlipConfig, words: WordPiece
) -> None:
    network, queue = fresh(config)
    one, three = pairs(words, 1), pairs(words, 3)
    three = replace(three, image_ids=torch.tensor([4, 4, 4]))
    settings = StepSettings(words.enc_id, words.dec_id)
    for batch in (one, three):
        found = network(batch, queue, settings, GENERATOR)
        states, ids = network.vision_model(batch.pixels), batch.with_first_token(words.enc_id)
        logits = network.match_logits(ids, batch.mask, states, None)
        expected = -logits.log_softmax(1)[:, 1].mean()
        torch.testing.assert_close(found.itm, expected)


def test_padding_wider_changes_no_loss(config: BlipConfig, words: WordPiece) -> None:
    batch = pairs(words, 4)
    wide = replace(
        batch,
        ids=torch.nn.functional.pad(batch.ids, (0, 5), value=words.pad_id),
        mask=torch.nn.functional.pad(batch.mask, (0, 5)),
    )
    settings, given = StepSettings(words.enc_id, words.dec_id), (torch.tensor([1, 2, 3, 0]),) * 2
    found = []
    for one in (batch, wide):
        network, queue = fresh(config)
        found.append(network(one, queue, settings, GENERATOR, fixed_negatives=given))
    for name in ("itc", "itm", "lm"):
        torch.testing.assert_close(getattr(found[0], name), getattr(found[1], name))
