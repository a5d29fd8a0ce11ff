"""A training's state on disk is whole or not there, and gives back every bit."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.training.momentum import FeatureQueue
from pipeline.train import state as training_state
from pipeline.train.state import StateError, TrainerProgress

PROGRESS = TrainerProgress(
    step=7,
    samples=84,
    positions={0: 42, 1: 43},
    left_out={"image_undecodable": 1},
    numbers={"loss": 0.1 + 0.2, "itm": 1 / 3},
    alarms=("itm at its prior: yes",),
    itm=2 / 3,
)


class Tied(nn.Module):
    """A network with a frozen part, a part that no loss reaches, and a parameter of two names."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width, bias=False)
        self.second.weight = self.first.weight
        self.frozen = nn.Linear(width, width).requires_grad_(False)
        self.unused = nn.Linear(width, width)
        self.register_state_dict_post_hook(name_once)
        self.register_load_state_dict_pre_hook(name_twice)


def name_once(_network: nn.Module, state: dict[str, Any], *_: object) -> None:
    del state["second.weight"]


def name_twice(_network: nn.Module, state: dict[str, Any], *_: object) -> None:
    if "first.weight" in state:
        state["second.weight"] = state["first.weight"]


def trained(steps: int, seed: int = 1) -> tuple[Tied, FeatureQueue, torch.optim.AdamW]:
    torch.manual_seed(seed)
    network, queue = Tied(), FeatureQueue(4, 6, ids=True)
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        step(network, queue, optimiser)
    return network, queue, optimiser


def step(network: Tied, queue: FeatureQueue, optimiser: torch.optim.AdamW) -> float:
    rows = torch.linspace(0, 1, 8).reshape(2, 4)
    loss = (network.frozen(network.second(network.first(rows))) - 1).square().mean()
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()
    queue.enqueue(rows, rows, torch.tensor([5, 6]))
    return loss.item()


def save(folder: Path, progress: TrainerProgress = PROGRESS, keep: int = 2, steps: int = 3) -> None:
    network, queue, optimiser = trained(steps)
    training_state.save_state(folder, network, queue, optimiser, progress, keep)


def at(step: int) -> TrainerProgress:
    return TrainerProgress(step, step, {0: step}, {})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_taken_up_goes_on_to_the_last_bit(tmp_path: Path) -> None:
    network, queue, optimiser = trained(3)
    training_state.save_state(tmp_path, network, queue, optimiser, PROGRESS, 2)
    expected = [step(network, queue, optimiser) for _ in range(3)]

    taken, other_queue, other = trained(0, seed=2)
    state = training_state.newest_state(tmp_path)
    assert state is not None
    assert training_state.load_state(state, taken, other_queue, other) == PROGRESS
    assert [step(taken, other_queue, other) for _ in range(3)] == expected
    for name, tensor in network.state_dict().items():
        assert torch.equal(taken.state_dict()[name], tensor), name
    for name, tensor in queue.state_dict().items():
        assert torch.equal(other_queue.state_dict()[name], tensor), name


def test_a_training_without_queues_is_taken_up(tmp_path: Path) -> None:
    network, _, optimiser = trained(1)
    training_state.save_state(tmp_path, network, None, optimiser, at(1), 2)
    taken, _, other = trained(0, seed=2)
    assert training_state.load_state(tmp_path / "step-00000001", taken, None, other) == at(1)
    assert torch.equal(taken.first.weight, network.first.weight)


def test_the_newest_is_found_and_older_ones_go(tmp_path: Path) -> None:
    assert training_state.newest_state(tmp_path / "none") is None
    for number in (5, 10, 95, 100, 1_000):
        save(tmp_path, at(number))
    assert names(tmp_path) == ["step-00000100", "step-00001000"]
    newest = training_state.newest_state(tmp_path)
    assert newest == tmp_path / "step-00001000"


def test_a_step_that_is_done_again_takes_the_place(tmp_path: Path) -> None:
    save(tmp_path, at(5), steps=1)
    save(tmp_path, at(5), steps=3)
    taken, queue, optimiser = trained(0)
    training_state.load_state(tmp_path / "step-00000005", taken, queue, optimiser)
    assert torch.equal(taken.first.weight, trained(3)[0].first.weight)
    assert names(tmp_path) == ["step-00000005"]


def test_what_a_kill_left_is_no_state(tmp_path: Path) -> None:
    save(tmp_path, at(5))
    shutil.copytree(tmp_path / "step-00000005", tmp_path / ".step-00000009.partial")
    shutil.copytree(tmp_path / "step-00000005", tmp_path / ".step-00000003.old.partial")
    for mine in ("step-9.mine", ".step-by-step.partial"):
        (tmp_path / mine).mkdir()
    assert training_state.newest_state(tmp_path) == tmp_path / "step-00000005"
    training_state.remove_partial(tmp_path)
    assert names(tmp_path) == [".step-by-step.partial", "step-00000005", "step-9.mine"]


@pytest.mark.parametrize(
    "file", ["network.safetensors", "beside.safetensors", "optimiser.safetensors", "progress.json"]
)
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_state_is_an_error_that_says_where(
    tmp_path: Path, file: str, damage: str
) -> None:
    save(tmp_path)
    state = tmp_path / "step-00000007"
    if damage == "missing":
        (state / file).unlink()
    else:
        content = (state / file).read_bytes()
        (state / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(StateError, match=r"step-00000007 cannot be taken up: .*Delete it"):
        training_state.load_state(state, *trained(0))


def test_a_state_of_another_network_is_an_error(tmp_path: Path) -> None:
    save(tmp_path)
    other = Tied(5)
    optimiser = torch.optim.AdamW(other.parameters())
    with pytest.raises(StateError, match="cannot be taken up"):
        training_state.load_state(tmp_path / "step-00000007", other, FeatureQueue(4, 6), optimiser)


def test_lines_of_undone_steps_go(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    for number in range(1, 7):
        training_state.append_line(file, {"step": number, "loss": number / 3})
    whole = file.read_text()
    with file.open("a") as opened:
        opened.write('{"step": 7, "lo')
    training_state.drop_lines_after(file, 6)
    assert file.read_text() == whole
    training_state.drop_lines_after(file, 4)
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2, 3, 4]
    training_state.drop_lines_after(file, 0)
    assert file.read_text() == ""
    training_state.drop_lines_after(tmp_path / "none.jsonl", 4)
    assert names(tmp_path) == ["metrics.jsonl"]
