"""Images per second of capfilt in one process, beside the loop that one writes with transformers.

Both have the same weights, pictures, texts and batch size, and captions of 20 tokens. capfilt does
all of a run, tar to commit; the loop decodes, captions, and scores both texts by ITM.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import duckdb
import torch
import transformers
import webdataset as wds

from models.blip import tokenizer
from models.blip.config import ARCHITECTURES, TORCH_DTYPES, blip_config, resolve_dtype
from models.checkpoints import checkpoint
from models.devices import choose_device
from models.roles.captioner import BlipCaptioner
from models.roles.filter import Filter
from pipeline.clean.shard import CleanConfig, ExecutionConfig, ShardCleaner, identity
from pipeline.toy.world import ToyWorldConfig, vocabulary, write_toy_world
from shards.inputs.listing import list_inputs
from shards.run.run import Run
from shards.store import Store

ROLES = ("captioner", "filter")
WORDS, TOKENS = 30_522, 20  # BLIP's vocabulary without [DEC] and [ENC]; tokens of a caption
DEVICE = str(choose_device())
TEXTS = """select key, list(text order by text_no) from '{0}/samples/*.parquet'
join '{0}/texts/*.parquet' using (shard, index) group by key"""


def main(o: argparse.Namespace, folder: Path) -> None:
    """Time capfilt and the loop by turns, after one to warm up, and print what was measured."""
    world = ToyWorldConfig(samples=o.images, image_px=512, image_format="jpeg")
    inputs = list_inputs([o.shards or str(write_toy_world(folder / "input", world)[0])])
    o.dtype = resolve_dtype(o.dtype, DEVICE)
    make_models(folder, o)
    caption = {"model": str(folder / "captioner"), "min_tokens": TOKENS, "max_tokens": TOKENS}
    config = CleanConfig(dtype=o.dtype, caption=caption, score={"model": str(folder / "filter")})
    options = {"dtype": o.dtype, "device": DEVICE}
    captioner = BlipCaptioner.load(folder / "captioner", decoding=config.caption, **options)
    models = captioner, Filter.load(folder / "filter", **options)
    digests = identity(config, *(model.digest for model in models))
    loop: list = [transformers.BlipProcessor.from_pretrained(folder / "captioner")]
    for role in ROLES:
        model = getattr(transformers, ARCHITECTURES[role]).from_pretrained(folder / role)
        loop.append(model.to(DEVICE, TORCH_DTYPES[o.dtype]).eval())
    ours, theirs, pace = [], [], ExecutionConfig(o.batch)
    for turn in range(o.repeats + 1):
        run = Run.create(Store(str(folder / f"run{turn}")), "", digests, {}, inputs)
        cleaner, started = ShardCleaner(run, config, *models, pace), time.perf_counter()
        for shard in inputs:
            cleaner.clean(shard, lambda *_: None)
        ours.append(time.perf_counter() - started)
        texts = dict(duckdb.sql(TEXTS.format(folder / f"run{turn}" / "data")).fetchall())
        started = time.perf_counter()
        run_loop(loop, [shard.url for shard in inputs], texts, o.batch)
        theirs.append(time.perf_counter() - started)
    commit = subprocess.getoutput("git rev-parse --short HEAD 2>/dev/null || echo none")
    threads = f"{torch.get_num_threads()} CPU threads, {torch.backends.cpu.get_cpu_capability()}"
    chip = torch.cuda.get_device_name() if DEVICE == "cuda" else threads
    print(f"- {datetime.now(UTC):%Y-%m-%d}, commit {commit}, on {chip}")
    print(f"- command: `python {' '.join(sys.argv)}`; torch {torch.__version__}")
    print(f"- {len(texts)} pictures, {o.size} at {o.px} px, {o.dtype}, batches of {o.batch}\n")
    print("| images/s | median | each turn |\n| --- | --- | --- |")
    rates = [[len(texts) / seconds for seconds in turns[1:]] for turns in (ours, theirs)]
    rates.append([fast / slow for fast, slow in zip(*rates, strict=True)])
    for name, row in zip(("capfilt", "transformers loop", "ratio"), rates, strict=True):
        print(f"| {name} | {median(row):.2f} | {', '.join(f'{rate:.2f}' for rate in row)} |")


def make_models(folder: Path, o: argparse.Namespace) -> None:
    """Write a captioner and a filter with random weights and a vocabulary of BLIP's size."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *vocabulary()]
    words += [f"w{number}" for number in range(WORDS - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    vocab = tokenizer.load(folder, WORDS)
    config = blip_config(o.size, image_size=o.px, **vocab.config_fields)
    for role in ROLES:
        checkpoint.create(folder / role, role, config, vocab, seed=0)


@torch.inference_mode()
def run_loop(loop: list, urls: list[str], texts: dict[str, list[str]], size: int) -> None:
    """Do it the obvious way: each text is scored with its image, which is encoded again."""
    data = wds.WebDataset(urls, shardshuffle=False).decode("pilrgb")
    data = data.to_tuple("jpg;jpeg;png;webp", "__key__").select(lambda pair: pair[1] in texts)
    processor, captioner, scorer = loop
    lengths = {"min_new_tokens": TOKENS, "max_new_tokens": TOKENS}
    cut = {"padding": True, "truncation": True, "max_length": 35, "return_tensors": "pt"}
    for images, keys in data.batched(size):
        batch = processor(list(images), ["a picture of"] * len(keys), return_tensors="pt")
        batch = batch.to(DEVICE, captioner.dtype)
        ids = captioner.generate(**batch, do_sample=True, top_p=0.9, top_k=0, **lengths)
        processor.batch_decode(ids, skip_special_tokens=True)
        for group in zip(*(texts[key] for key in keys), strict=True):
            words = processor(text=list(group), **cut).to(DEVICE)
            scorer(**words, pixel_values=batch["pixel_values"]).itm_score.softmax(-1).tolist()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("tiny", "base", "large"), default="base")
    parser.add_argument("--dtype", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--shards", help="a folder of shards (default: a toy world, 512 px JPEG)")
    for name, value in (("px", 224), ("images", 8), ("batch", 8), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    with tempfile.TemporaryDirectory(prefix="capfilt-bench-") as scratch:
        main(parser.parse_args(), Path(scratch))
