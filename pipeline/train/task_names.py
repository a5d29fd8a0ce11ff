"""The names of what can be finetuned, apart from the registry: a command's help needs no torch."""

from typing import Literal

Task = Literal["captioner", "filter", "retrieval", "joint", "vqa", "nlvr", "dialogue"]
