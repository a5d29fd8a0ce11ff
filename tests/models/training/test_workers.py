"""Several workers, each with a part of a batch, compute what one computes with the whole.

The workers are processes that this file starts as a program, joined by gloo on loopback.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.blip.config import blip_config
from models.blip.networks import CaptionNetwork
from models.training.captioning import language_loss
from models.training.config import Across, Rule
from models.training.contrast import Pairs
from models.training.finetuning import RetrievalNetwork, RetrievalSettings
from models.training.momentum import FeatureQueue
from models.training.pretraining import PretrainNetwork, StepSettings
from models.training.workers import ALONE, Workers

pytestmark = pytest.mark.slow

SIZES = (2, 3)
ROWS, TOKENS, STEPS, PLACES = 6, 7, 2, 10
CONFIG = blip_config("tiny", vocab_size=60, sep_id=2, pad_id=0, image_size=16)
Found = dict[str, Any]

assert_close = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-5)


def rows_of(workers: Workers) -> slice:
    each = ROWS // workers.size
    return slice(workers.rank * each, (workers.rank + 1) * each)


def pairs(workers: Workers, step: int) -> Pairs:
    """Give a worker's part of a step's batch, no longer than its longest text but for others'."""
    draw = torch.Generator().manual_seed(step)
    lengths = torch.tensor([3, 7, 4, 5, 6, 3])
    mask = torch.arange(TOKENS) < lengths[:, None]
    ids = torch.randint(5, 58, (ROWS, TOKENS), generator=draw) * mask
    pixels = torch.randn(ROWS, 3, 16, 16, generator=draw)
    image_ids = torch.tensor([4, 5, 6, 4, 8, 9])
    hashes = torch.tensor([1, 2, 3, 4, 2, 6])
    part, columns = rows_of(workers), slice(workers.longest(int(lengths[rows_of(workers)].max())))
    return Pairs(
        pixels[part], ids[part, columns], mask[part, columns], image_ids[part], hashes[part]
    )


def network_of(kind: type[nn.Module]) -> Any:
    """Make the same random network each time, its copies unlike their modules."""
    torch.manual_seed(5)
    network = kind(CONFIG)
    for name, parameter in network.named_parameters():
        if name != "temp" and "norm" not in name.lower():
            nn.init.normal_(parameter, std=0.1)
    return network.train()


def pretrain(workers: Workers, rule: Rule) -> Found:
    numbers = {"ids": rule == "masked", "hashes": rule == "masked"}
    queue, losses = FeatureQueue(CONFIG.image_text_hidden_size, PLACES, **numbers), []
    network = network_of(PretrainNetwork)
    settings = StepSettings(59, 58, alpha=0.3, momentum=0.9, negatives=rule, prompt=(7, 8))
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(9 + step)
        found = network(pairs(workers, step), queue, settings, generator, workers=workers)
        found.total.backward()
        losses += [found.itc, found.itm, found.lm]
    return state(workers, network, losses, queue)


def retrieve(workers: Workers, across: Across) -> Found:
    queue, losses = FeatureQueue(CONFIG.image_text_hidden_size, PLACES, ids=True), []
    network = network_of(RetrievalNetwork)
    settings = RetrievalSettings(59, alpha=0.3, momentum=0.9, across=across)
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(9 + step)
        found = network(pairs(workers, step), queue, settings, generator, workers=workers)
        found.total.backward()
        losses += [found.itc, found.itm]
    return state(workers, network, losses, queue)


def caption(workers: Workers) -> Found:
    network = network_of(CaptionNetwork)
    batch = pairs(workers, 0)
    states = network.vision_model(batch.pixels)
    ids, mask = batch.with_prompt(58, (7, 8))
    loss = language_loss(network.text_decoder, ids, mask, states, prompt=2, workers=workers)
    loss.backward()
    return state(workers, network, [loss], None)


def state(
    workers: Workers, network: nn.Module, losses: list[Tensor], queue: FeatureQueue | None
) -> Found:
    """Average losses and gradients over the workers, as DDP does, and keep what they moved."""
    found = {f"loss.{n}": workers.mean(loss) for n, loss in enumerate(losses)}
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            found[f"gradient.{name}"] = workers.mean(parameter.grad)
        if "_m." in name:
            found[f"copy.{name}"] = parameter.detach()
    return found | ({} if queue is None else queue.state_dict())


def operate(workers: Workers) -> Found:
    """Do each operation of the workers once."""
    rank, size = workers.rank, workers.size
    mine = (torch.arange(6.0).reshape(2, 3).T + 10 * rank).requires_grad_()  # not contiguous
    # one's own, one that all take, and the next worker's last
    index = torch.tensor([3 * rank, 1, 3 * ((rank + 1) % size) + 2])
    weights = torch.arange(3.0)[:, None] + 1 + 100 * rank
    taken = workers.take(mine, index)
    (taken * weights).sum().backward()
    return {
        "gathered": workers.gather(mine),
        "taken": taken.detach(),
        "has_gradient": (workers.gather(mine).requires_grad, taken.requires_grad),
        "gradient": mine.grad,
        "flags": workers.gather(torch.tensor([rank == 0, True])),
        "mean": workers.mean(torch.tensor(float(rank), requires_grad=True)),
        "longest": workers.longest(7 - rank),
        "collected": workers.collect({"rank": rank}),
    }


def count_traffic(work: Callable[[], Found]) -> tuple[Found, Found]:
    """Do some work, and count the image states that reach this worker."""
    counts = {"gathered states": 0, "taken states": 0}
    all_gather: Any = dist.all_gather
    all_to_all: Any = dist.all_to_all_single

    def gather(parts: list[Tensor], rows: Tensor) -> None:
        counts["gathered states"] += sum(map(len, parts)) if rows.dim() == 3 else 0
        all_gather(parts, rows)

    def exchange(arrived: Tensor, leaving: Tensor, *sizes: list[int]) -> None:
        counts["taken states"] += len(arrived)
        all_to_all(arrived, leaving, *sizes)

    for name, way in (("all_gather", gather), ("all_to_all_single", exchange)):
        setattr(dist, name, way)
    done = work()
    for name, way in (("all_gather", all_gather), ("all_to_all_single", all_to_all)):
        setattr(dist, name, way)
    return done, counts


def work(workers: Workers) -> dict[str, Found]:
    """Compute everything that is compared."""
    pretrained, traffic = count_traffic(lambda: pretrain(workers, "masked"))
    return {
        "traffic": traffic,
        "operations": operate(workers),
        "pretrain": pretrained,
        "retrieval": retrieve(workers, "everything"),
        "caption": caption(workers),
        "pretrain apart": pretrain(workers, "original"),
        "retrieval apart": retrieve(workers, "nothing"),
        "retrieval negatives": retrieve(workers, "negatives"),
    }


def main(rank: int, folder: Path) -> None:
    """Be a worker, of two and then of three."""
    torch.set_num_threads(1)
    for size in SIZES:
        if rank < size:
            store = f"file://{folder / f'store{size}'}"
            dist.init_process_group("gloo", store, rank=rank, world_size=size)
            torch.save(work(Workers(rank, size)), folder / f"{size}-{rank}.pt")
            dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Found]]]:
    """What the workers found, by their number."""
    folder = tmp_path_factory.mktemp("workers")
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(folder)], env=environment)
        for rank in range(max(SIZES))
    ]
    assert [process.wait(timeout=200) for process in started] == [0] * len(started)
    return {
        size: [torch.load(folder / f"{size}-{rank}.pt") for rank in range(size)] for size in SIZES
    }


@pytest.fixture(scope="module")
def alone() -> dict[str, Found]:
    """What one worker finds with the whole batch."""
    return work(ALONE)


@pytest.mark.parametrize("size", SIZES)
def test_rows_are_gathered_in_order(found: dict[int, list[dict[str, Found]]], size: int) -> None:
    rows = torch.arange(6.0).reshape(2, 3).T
    expected = torch.cat([rows + 10 * rank for rank in range(size)])
    for each in found[size]:
        operations = each["operations"]
        assert torch.equal(operations["gathered"], expected)
        assert operations["has_gradient"] == (False, True)
        flags = [True, True, *[False, True] * (size - 1)]
        assert operations["flags"].tolist() == flags
        assert operations["collected"] == [{"rank": rank} for rank in range(size)]
        assert operations["longest"] == 7


@pytest.mark.parametrize("size", SIZES)
def test_rows_are_taken_from_whom_they_are_of(
    found: dict[int, list[dict[str, Found]]], size: int
) -> None:
    rows = torch.arange(6.0).reshape(2, 3).T
    everything = torch.cat([rows + 10 * rank for rank in range(size)])
    gradients = torch.zeros(3 * size, 2)
    for rank, each in enumerate(found[size]):
        index = torch.tensor([3 * rank, 1, 3 * ((rank + 1) % size) + 2])
        assert torch.equal(each["operations"]["taken"], everything[index])
        for number, row in enumerate(index.tolist()):
            gradients[row] += number + 1 + 100 * rank
    for rank, each in enumerate(found[size]):
        assert torch.equal(each["operations"]["gradient"], gradients[3 * rank : 3 * rank + 3])


@pytest.mark.parametrize("size", SIZES)
def test_image_states_travel_only_where_they_are_wrong_of_a_text(
    found: dict[int, list[dict[str, Found]]], size: int
) -> None:
    """A gather of all states would bring each worker size x B of them, for the B that it reads."""
    traffic = [each["traffic"] for each in found[size]]
    assert [counts["gathered states"] for counts in traffic] == [0] * size
    # and as many gradients, to whom the images are of
    assert sum(counts["taken states"] for counts in traffic) == 2 * STEPS * ROWS


@pytest.mark.parametrize("size", SIZES)
def test_a_mean_is_alike_on_all_and_has_no_gradient(
    found: dict[int, list[dict[str, Found]]], size: int
) -> None:
    for each in found[size]:
        assert each["operations"]["mean"].item() == pytest.approx((size - 1) / 2)
        assert not each["operations"]["mean"].requires_grad


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("what", ["pretrain", "retrieval", "caption"])
def test_parts_of_a_batch_give_what_the_whole_gives(
    found: dict[int, list[dict[str, Found]]], alone: dict[str, Found], size: int, what: str
) -> None:
    whole = alone[what]
    assert sum(name.startswith("gradient.") for name in whole) > 40
    for each in found[size]:
        assert each[what].keys() == whole.keys()
        for name, expected in whole.items():
            assert_close(each[what][name], expected, msg=partial("{}: {}".format, name))


@pytest.mark.parametrize("size", SIZES)
def test_what_is_not_shared_is_another_loss_of_the_same_queue(
    found: dict[int, list[dict[str, Found]]], alone: dict[str, Found], size: int
) -> None:
    for what in ("pretrain apart", "retrieval apart", "retrieval negatives"):
        for each in found[size]:
            assert abs(each[what]["loss.0"] - alone[what]["loss.0"]) > 1e-3, what
            # the first step's features come from the same weights, whoever contrasts them
            first = slice(0, ROWS)
            for queue in ("image_queue", "text_queue"):
                assert_close(each[what][queue][:, first], alone[what][queue][:, first])


def test_alone_nothing_is_sent() -> None:
    operations = operate(ALONE)
    rows = torch.arange(6.0).reshape(2, 3).T
    assert torch.equal(operations["gathered"], rows)
    assert operations["has_gradient"] == (False, True)
    assert torch.equal(operations["gradient"], torch.arange(1.0, 4)[:, None].expand(3, 2))
    assert operations["longest"] == 7
    assert operations["collected"] == [{"rank": 0}]
    assert not operations["mean"].requires_grad


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
