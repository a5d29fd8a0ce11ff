"""More tiny folders of other makers' captioners, each with a way of its own to take pictures."""

import json
from pathlib import Path

import transformers as hf

from tests.support.tiny_guests import (
    CHAT,
    QUESTION,
    Build,
    draw_weights,
    save,
    text_tower,
    vision_tower,
    words,
)

_GRID = [[32, 32], [32, 64], [64, 32], [64, 64]]


def blip2(folder: Path) -> None:
    """A network within the network writes; it has generation settings of its own."""
    tokenizer = words("<image>")
    images = hf.BlipImageProcessorPil(size={"height": 32, "width": 32})
    hf.Blip2Processor(images, tokenizer, num_query_tokens=4).save_pretrained(folder)
    config = hf.Blip2Config(
        vision_config=vision_tower(),
        qformer_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "encoder_hidden_size": 32,
            "vocab_size": 50,
        },
        text_config={
            "model_type": "opt",
            "word_embed_proj_dim": 32,
            "ffn_dim": 64,
            **text_tower(vocab_size=len(tokenizer)),
        },
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    save(hf.Blip2ForConditionalGeneration(config), folder, tokenizer)


def internvl(folder: Path) -> None:
    """Tiles of all pictures in one tensor, no count beside it; its videos want torchvision."""
    tokenizer = words(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    tokenizer.chat_template = CHAT.replace("MARK", "<IMG_CONTEXT>")
    tokenizer.save_pretrained(folder)
    hf.GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=4
    ).save_pretrained(folder)
    _name_processor(folder, "InternVLProcessor", image_seq_length=1)
    config = hf.InternVLConfig(
        vision_config=vision_tower(image_size=[32, 32], patch_size=[16, 16]),
        text_config={"model_type": "llama", **text_tower(vocab_size=len(tokenizer))},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=1,
    )
    save(hf.InternVLForConditionalGeneration(config), folder, tokenizer)


def llava_next(folder: Path) -> None:
    """Tiles by shape, and the size of each picture beside them."""
    tokenizer = words(image_token="<image>")
    images = hf.LlavaNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_size=32, image_grid_pinpoints=_GRID
    )
    hf.LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT.replace("MARK", "<image>"),
    ).save_pretrained(folder)
    config = hf.LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", **vision_tower()},
        text_config={"model_type": "llama", **text_tower(vocab_size=len(tokenizer))},
        image_token_id=tokenizer.image_token_id,
        image_grid_pinpoints=_GRID,
    )
    save(hf.LlavaNextForConditionalGeneration(config), folder, tokenizer)


def llava_onevision(folder: Path) -> None:
    """As LLaVA-NeXT, with a processor whose videos want torchvision."""
    tokenizer = words(image_token="<image>", video_token="<video>")
    tokenizer.chat_template = CHAT.replace("MARK", "<image>")
    tokenizer.save_pretrained(folder)
    hf.LlavaOnevisionImageProcessorPil(
        size={"height": 32, "width": 32}, image_grid_pinpoints=_GRID
    ).save_pretrained(folder)
    kept = {"num_image_tokens": 4, "vision_feature_select_strategy": "full"}
    _name_processor(folder, "LlavaOnevisionProcessor", **kept)
    vision = {"model_type": "siglip_vision_model", **vision_tower(), "vision_use_head": False}
    config = hf.LlavaOnevisionConfig(
        vision_config=vision,
        text_config={"model_type": "llama", **text_tower(vocab_size=len(tokenizer))},
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
        image_grid_pinpoints=_GRID,
        vision_feature_layer=-1,
    )
    save(hf.LlavaOnevisionForConditionalGeneration(config), folder, tokenizer)


def paligemma(folder: Path) -> None:
    """The processor adds a thousand words of its own, and labels."""
    tokenizer = words(image_token="<image>")
    images = hf.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    images.image_seq_length = 4
    hf.PaliGemmaProcessor(images, tokenizer).save_pretrained(folder)
    config = hf.PaliGemmaConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            **vision_tower(),
            "projection_dim": 32,
        },
        text_config={"model_type": "gemma", **text_tower(vocab_size=1300), "head_dim": 16},
        image_token_id=tokenizer.image_token_id,
        projection_dim=32,
    )
    save(hf.PaliGemmaForConditionalGeneration(config), folder, tokenizer)


def pix2struct(folder: Path) -> None:
    """Pictures as flat patches, and a decoder that has no prompt."""
    tokenizer = words(framed=True)
    images = hf.Pix2StructImageProcessorPil(patch_size={"height": 16, "width": 16})
    hf.Pix2StructProcessor(images, tokenizer).save_pretrained(folder)
    tower = {"hidden_size": 32, "d_kv": 16, "d_ff": 64, "num_attention_heads": 2}
    config = hf.Pix2StructConfig(
        text_config={
            **tower,
            "num_heads": 2,
            "num_layers": 2,
            "vocab_size": len(tokenizer),
            "pad_token_id": 0,
            "eos_token_id": 2,
            "decoder_start_token_id": 0,
        },
        vision_config={
            **tower,
            "patch_embed_hidden_size": 768,
            "num_hidden_layers": 2,
            "seq_len": 4096,
        },
        is_encoder_decoder=True,
    )
    network = hf.Pix2StructForConditionalGeneration(config)
    draw_weights(network, gain=1.5)
    network.save_pretrained(folder)


def vision_encoder_decoder(folder: Path) -> None:
    """Two towers of other families, and no processor that knows both."""
    tokenizer = words()
    tokenizer.save_pretrained(folder)
    hf.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    text = hf.GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=128, eos_token_id=2
    )
    config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        hf.ViTConfig(**vision_tower()), text
    )
    network = hf.VisionEncoderDecoderModel(config)
    draw_weights(network, gain=1.5)
    ids = {"decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_id": 2}
    network.generation_config = hf.GenerationConfig(**ids)
    network.save_pretrained(folder)


MORE_CAPTIONERS: dict[str, tuple[Build, str]] = {
    "blip2": (blip2, ""),
    "internvl": (internvl, QUESTION),
    "llava_next": (llava_next, QUESTION),
    "llava_onevision": (llava_onevision, QUESTION),
    "paligemma": (paligemma, "a dog"),
    "pix2struct": (pix2struct, ""),
    "vision_encoder_decoder": (vision_encoder_decoder, ""),
}


def _name_processor(folder: Path, name: str, **settings: object) -> None:
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": name, **settings}))
