"""A picture and a prompt, made ready as the family's own processor does it."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import transformers as hf

from models.checkpoints.locate import CheckpointError
from models.guests.folder import read_config
from models.guests.processor import PromptedProcessor
from tests.support.tiny_guests import QUESTION, pictures, words


def opened(folder: Path, prompt: str) -> PromptedProcessor:
    return PromptedProcessor(folder, read_config(folder), prompt, "pil")


def test_threads_do_not_disturb_each_other(guest_folder: Callable[[str], Path]) -> None:
    processor = opened(guest_folder("qwen2_5_vl"), QUESTION)
    expected = [processor(picture) for picture in pictures()]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(processor, pictures() * 5))
    for number, row in enumerate(made):
        for name, tensor in expected[number % 6].items():
            assert torch.equal(row[name], tensor)


def test_a_chat_model_is_asked_something(guest_folder: Callable[[str], Path]) -> None:
    with pytest.raises(CheckpointError, match="is a chat model, which answers what it is asked"):
        opened(guest_folder("llava"), "")


def test_a_prompt_that_does_not_fit_is_told(guest_folder: Callable[[str], Path]) -> None:
    processor = opened(guest_folder("florence2"), "<CAPTION> in German")
    with pytest.raises(ValueError, match="should be the only content"):
        processor(pictures()[0])


def test_the_picture_stands_before_the_words_where_nobody_puts_it(
    tmp_path: Path, guest_folder: Callable[[str], Path]
) -> None:
    whole = hf.AutoProcessor.from_pretrained(guest_folder("llava"), backend="pil")
    whole.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    read_config(guest_folder("llava")).save_pretrained(tmp_path)
    for prompt in ("a dog", "<image>a dog"):
        ids = opened(tmp_path, prompt)(pictures()[0])["input_ids"]
        own = whole(text="<image>a dog", images=pictures()[0], return_tensors="pt")["input_ids"]
        assert ids.tolist() == own.tolist()


def test_a_blip2_that_would_batch_wrongly_is_refused(
    tmp_path: Path, guest_folder: Callable[[str], Path]
) -> None:
    folder = Path(shutil.copytree(guest_folder("blip2"), tmp_path / "blip2"))
    settings = json.loads((folder / "processor_config.json").read_text())
    del settings["num_query_tokens"]
    (folder / "processor_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="has no num_query_tokens"):
        opened(folder, "")


def test_a_backend_that_is_not_installed(guest_folder: Callable[[str], Path]) -> None:
    if importlib.util.find_spec("torchvision"):
        pytest.skip("torchvision is installed")
    folder = guest_folder("llava")
    with pytest.raises(CheckpointError, match="here pil alone opens the pictures"):
        PromptedProcessor(folder, read_config(folder), QUESTION, "torchvision")


def test_a_folder_of_two_towers_has_no_words_for_a_picture(tmp_path: Path) -> None:
    config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        hf.ViTConfig(), hf.GPT2Config()
    )
    config.save_pretrained(tmp_path)
    words().save_pretrained(tmp_path)
    hf.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    made = opened(tmp_path, "")(pictures()[1])
    assert {name: tuple(tensor.shape) for name, tensor in made.items()} == {
        "pixel_values": (1, 3, 32, 32)
    }
    with pytest.raises(CheckpointError, match="takes no words with a picture"):
        opened(tmp_path, "a dog")
