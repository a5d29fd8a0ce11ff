"""Batches of pictures that were prepared one by one."""

import torch

from models.guests.batch import collate, held_bytes, to_model


def test_tokens_are_padded_on_the_left_and_masked() -> None:
    rows = [
        {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3).long()},
        {"input_ids": torch.tensor([[8]]), "attention_mask": torch.ones(1, 1).long()},
    ]
    batch = collate(rows, pad_id=9)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [9, 9, 8]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


def test_the_tokens_of_a_second_network_are_padded_as_tokens() -> None:
    rows = [{"qformer_input_ids": torch.tensor([ids])} for ids in ([3, 4], [5])]
    assert collate(rows, pad_id=9)["qformer_input_ids"].tolist() == [[3, 4], [9, 5]]


def test_pictures_of_other_shapes_are_filled_behind() -> None:
    rows = [{"pixel_values": torch.ones(1, 2, 3)}, {"pixel_values": 2 * torch.ones(1, 1, 2)}]
    expected = [[[1, 1, 1], [1, 1, 1]], [[2, 2, 0], [0, 0, 0]]]
    assert collate(rows, 9)["pixel_values"].tolist() == expected
    masks = [{"pixel_attention_mask": torch.ones(1, 1, 1, n).long()} for n in (2, 1)]
    assert collate(masks, 9)["pixel_attention_mask"].tolist() == [[[[1, 1]]], [[[1, 0]]]]


def test_patches_of_all_pictures_stand_behind_each_other() -> None:
    rows = [{"pixel_values": torch.full((n, 4), float(n))} for n in (2, 3)]
    assert collate(rows, 9)["pixel_values"][:, 0].tolist() == [2, 2, 3, 3, 3]


def test_only_what_is_no_whole_number_takes_the_weights_type() -> None:
    batch = {"pixel_values": torch.ones(1, 2), "input_ids": torch.tensor([[1]])}
    moved = to_model(batch, torch.device("cpu"), torch.bfloat16)
    assert moved["pixel_values"].dtype == torch.bfloat16
    assert moved["input_ids"].dtype == torch.int64
    assert held_bytes(batch) == 8 + 8
