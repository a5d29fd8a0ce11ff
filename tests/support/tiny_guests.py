"""Tiny folders of other makers' models: their own classes and processors, random weights.

Weights are drawn wide enough that pictures differ in their captions: with the usual ones many
families say the same of every picture, and no test could fail.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

WORDS = [f"word{number}" for number in range(60)]
TASKS = ("Describe", "this", "picture", "in", "one", "sentence", ".", "a", "dog", "A", "Dog")
PAD, START, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
SPECIAL = [PAD, START, END, UNKNOWN]
CHAT = (
    "{{ bos_token }}{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "MARK{% else %} {{ c['text'] }}{% endif %}{% endfor %}{% endfor %} :"
)
QUESTION = "Describe this picture in one sentence ."
SIZES = [(64, 64), (96, 48), (40, 80), (120, 90), (33, 57), (200, 30)]

Build = Callable[[Path], None]


def pictures() -> list[Image.Image]:
    """Six pictures of six sizes, which no model takes for each other."""
    dice = np.random.default_rng(5)
    made = []
    for number, (width, height) in enumerate(SIZES):
        coarse = dice.integers(0, 256, (3 + number % 3, 4, 3), dtype=np.uint8)
        made.append(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return made


def words(*marks: str, framed: bool = False, **named: str) -> hf.PreTrainedTokenizerFast:
    """A tokenizer of whole words; `named` are marks that processors ask it for."""
    vocabulary = [*SPECIAL, *named.values(), *marks, *TASKS, ":", *WORDS]
    ids = {word: number for number, word in enumerate(dict.fromkeys(vocabulary))}
    inner = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if framed:
        inner.post_processor = processors.TemplateProcessing(
            single=f"{START} $A {END}", special_tokens=[(START, ids[START]), (END, ids[END])]
        )
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
        extra_special_tokens=dict(named),
        model_max_length=4096,
    )
    if marks:
        tokenizer.add_special_tokens({"additional_special_tokens": list(marks)})
    return tokenizer


def draw_weights(network: nn.Module, gain: float, seed: int = 1) -> None:
    """Fill a network with weights that let pictures through to the words."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(tensor, std=0.02, generator=generator)
        elif tensor.ndim == 1:
            nn.init.ones_(tensor)
        elif "embed" in name and tensor.ndim == 2:
            nn.init.normal_(tensor, std=0.12, generator=generator)
        else:
            fan_in = math.prod(tensor.shape[1:])
            nn.init.normal_(tensor, std=gain / math.sqrt(fan_in), generator=generator)


def save(
    network: hf.PreTrainedModel,
    folder: Path,
    tokenizer: hf.PreTrainedTokenizerFast,
    gain: float = 1.2,
) -> None:
    """Write a network with wide weights; special tokens are never said, one word ends a text."""
    draw_weights(network, gain)
    head = network.get_output_embeddings()
    if head is not None:
        with torch.no_grad():
            head.weight[: len(SPECIAL)] = 0
            head.weight[tokenizer.eos_token_id] = head.weight[
                tokenizer.convert_tokens_to_ids(WORDS[7])
            ]
            head.weight[tokenizer.convert_tokens_to_ids(WORDS[7])] = 0
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if network.config.is_encoder_decoder:
        ids["decoder_start_token_id"] = tokenizer.eos_token_id
    network.generation_config = hf.GenerationConfig(**ids)
    network.save_pretrained(folder)


def text_tower(**sizes: object) -> dict[str, object]:
    """The sizes of a decoder, as Llama names them."""
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **sizes,
    }


def vision_tower(**sizes: object) -> dict[str, object]:
    """The sizes of a ViT, as CLIP names them."""
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
        **sizes,
    }


def llava(folder: Path) -> None:
    """Fixed size, chat template: what `transformers serve` can serve."""
    tokenizer = words(image_token="<image>")
    images = hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    processor = hf.LlavaProcessor(
        images,
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT.replace("MARK", "<image>"),
    )
    processor.save_pretrained(folder)
    config = hf.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **vision_tower()},
        text_config={"model_type": "llama", **text_tower(vocab_size=len(tokenizer))},
        image_token_id=tokenizer.image_token_id,
    )
    save(hf.LlavaForConditionalGeneration(config), folder, tokenizer)


def git(folder: Path) -> None:
    """Without a prompt; the words follow the picture."""
    tokenizer = words(framed=True)
    tokenizer.cls_token, tokenizer.sep_token = START, END
    images = hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    hf.GitProcessor(images, tokenizer).save_pretrained(folder)
    config = hf.GitConfig(
        vision_config=vision_tower(),
        **text_tower(vocab_size=len(tokenizer)),
    )
    save(hf.GitForCausalLM(config), folder, tokenizer)


def idefics3(folder: Path) -> None:
    """Ragged: as many tiles and picture tokens as the shape asks."""
    _tiled(folder, hf.Idefics3Processor, hf.Idefics3ImageProcessorPil, "idefics3")


def smolvlm(folder: Path) -> None:
    """Idefics3 again, in a folder whose processor wants num2words and torchvision."""
    _tiled(folder, hf.Idefics3Processor, hf.SmolVLMImageProcessorPil, "smolvlm")
    for path in folder.glob("*processor_config.json"):
        path.write_text(path.read_text().replace("Idefics3Processor", "SmolVLMProcessor"))


def _tiled(folder: Path, whole: type, images: type, family: str) -> None:
    rows = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer = words(
        "<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *rows
    )
    processor = whole(
        images(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}),
        tokenizer,
        image_seq_len=1,
        chat_template=CHAT.replace("MARK", "<image>"),
    )
    processor.save_pretrained(folder)
    kinds = {
        "idefics3": (hf.Idefics3Config, hf.Idefics3ForConditionalGeneration),
        "smolvlm": (hf.SmolVLMConfig, hf.SmolVLMForConditionalGeneration),
    }
    config, network = kinds[family]
    made = config(
        vision_config=vision_tower(),
        text_config={"model_type": "llama", **text_tower(vocab_size=len(tokenizer))},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    save(network(made), folder, tokenizer)


def qwen2_5_vl(folder: Path) -> None:
    """Ragged: the patches of all pictures stand in one tensor."""
    tokenizer = words(
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
    )
    tokenizer.chat_template = CHAT.replace("MARK", "<|vision_start|><|image_pad|><|vision_end|>")
    tokenizer.save_pretrained(folder)
    images = hf.Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, min_pixels=16 * 16, max_pixels=64 * 64
    )
    images._processor_class = "Qwen2_5_VLProcessor"
    images.save_pretrained(folder)
    config = hf.Qwen2_5_VLConfig(
        vision_config={
            "hidden_size": 32,
            "out_hidden_size": 32,
            "intermediate_size": 64,
            "depth": 2,
            "num_heads": 2,
            "patch_size": 4,
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        text_config=text_tower(
            vocab_size=len(tokenizer),
            rope_parameters={"rope_type": "default", "mrope_section": [2, 3, 3]},
        ),
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
        vision_start_token_id=tokenizer.vision_start_token_id,
        vision_end_token_id=tokenizer.vision_end_token_id,
    )
    save(hf.Qwen2_5_VLForConditionalGeneration(config), folder, tokenizer)


def florence2(folder: Path) -> None:
    """An encoder and a decoder; the prompt is a task."""
    tokenizer = words("<loc_0>", framed=True, image_token="<image>")
    images = hf.CLIPImageProcessorPil(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 5
    hf.Florence2Processor(images, tokenizer).save_pretrained(folder)
    config = hf.Florence2Config(
        vision_config={
            "embed_dim": [16, 32],
            "depths": [1, 1],
            "num_heads": [2, 2],
            "num_groups": [2, 2],
            "patch_size": [7, 3],
            "patch_stride": [8, 4],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "window_size": 2,
            "projection_dim": 32,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": len(tokenizer),
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 2,
        },
        image_token_id=tokenizer.image_token_id,
        is_encoder_decoder=True,
    )
    save(hf.Florence2ForConditionalGeneration(config), folder, tokenizer, gain=2.0)


CAPTIONERS: dict[str, tuple[Build, str]] = {
    "florence2": (florence2, "<CAPTION>"),
    "git": (git, ""),
    "idefics3": (idefics3, QUESTION),
    "llava": (llava, QUESTION),
    "qwen2_5_vl": (qwen2_5_vl, QUESTION),
    "smolvlm": (smolvlm, QUESTION),
}
