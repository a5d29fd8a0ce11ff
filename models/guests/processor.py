"""What makes one picture and one prompt ready for a captioner, in any thread.

The parts of a processor are opened one by one: the image processor by the backend that the recipe
names (transformers takes whichever is installed, and the two differ), and no video processor, which
wants torchvision and has nothing to do here.
"""

from pathlib import Path
from typing import Any

import transformers
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedConfig, ProcessorMixin

from models.checkpoints.locate import CheckpointError
from models.guests.config import ImageBackend
from models.guests.folder import as_checkpoint_errors, read_settings

# families whose processors put the picture before the words by themselves
_PLACES_PICTURE = {
    "blip",
    "blip-2",
    "florence2",
    "git",
    "instructblip",
    "kosmos-2",
    "pix2struct",
}
_WITHOUT_WORDS = {"blip", "blip-2", "git", "pix2struct"}  # asked nothing, they take no text at all
# the same inputs, from a class that does not want num2words for videos
_INSTEAD = {"SmolVLMProcessor": "Idefics3Processor"}
_NAMED_IN = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")


class PromptedProcessor:
    """Makes tensors of one picture and a fixed prompt, as a family's own processor does."""

    def __init__(
        self, folder: Path, config: PreTrainedConfig, prompt: str, backend: ImageBackend
    ) -> None:
        """Open a folder's processor; CheckpointError if it or the prompt does not fit."""
        self.folder, self._family = folder, config.model_type
        with as_checkpoint_errors(folder):
            self._images = open_image_processor(folder, backend)
            self.tokenizer = AutoTokenizer.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
            self._whole = self._open_whole(config, backend)
        self._text, self._options = self._place(prompt)

    @property
    def pad_id(self) -> int:
        """What rows of tokens are padded with; it is masked, so that any id will do."""
        pad = self.tokenizer.pad_token_id
        return 0 if pad is None else int(pad)

    def __call__(self, picture: Image.Image) -> dict[str, Tensor]:
        """Make the inputs of a picture, each a tensor (1 or more, …)."""
        if self._whole is None:
            made = self._images(images=[picture], return_tensors="pt")
        else:
            words = {} if self._text is None else {"text": [self._text], **self._options}
            made = self._whole(images=[[picture]], return_tensors="pt", **words)
        return {name: value for name, value in made.items() if name != "labels"}

    def _open_whole(self, config: PreTrainedConfig, backend: ImageBackend) -> Any:  # noqa: ANN401 - untyped
        """Open the class that joins picture and words; None where a folder has none."""
        kind = self._kind(config)
        if kind is None:
            return None
        attributes = [name for name in kind.get_attributes() if name != "video_processor"]
        pictures_only: Any = type(
            kind.__name__, (kind,), {"get_attributes": classmethod(lambda _: attributes)}
        )
        settings = read_settings(self.folder, "processor_config.json")
        if self._family == "blip-2" and settings.get("num_query_tokens") is None:
            raise CheckpointError(
                f"{self.folder}/processor_config.json has no num_query_tokens, without which "
                "batches come out wrong. Add it, as it stands in config.json"
            )
        return pictures_only.from_pretrained(
            self.folder, backend=backend, trust_remote_code=False, local_files_only=True
        )

    def _kind(self, config: PreTrainedConfig) -> type[ProcessorMixin] | None:
        named = [
            name
            for file in _NAMED_IN
            if (name := read_settings(self.folder, file).get("processor_class"))
        ]
        if named:
            return getattr(transformers, _INSTEAD.get(named[0], named[0]))
        kind = transformers.PROCESSOR_MAPPING.get(type(config), None)
        if kind is None:
            return None
        return getattr(transformers, _INSTEAD.get(kind.__name__, kind.__name__))

    def _place(self, prompt: str) -> tuple[str | None, dict[str, Any]]:
        """Write the words that stand with each picture, and how they are to be read."""
        if self._whole is None:
            if prompt:
                raise CheckpointError(
                    f"{self.folder} ({self._family}) takes no words with a picture; leave the "
                    "prompt out"
                )
            return None, {}
        if getattr(self._whole, "chat_template", None):
            return self._chat(prompt), {}
        if not prompt and self._family in _WITHOUT_WORDS:
            return None, {}
        if self._family == "git":  # a prompt that ends in [SEP] is a caption that has ended
            return f"{self.tokenizer.cls_token}{prompt}", {"add_special_tokens": False}
        mark = getattr(self._whole, "image_token", None)
        if self._family in _PLACES_PICTURE or not mark or mark in prompt:
            return prompt, {}
        return f"{mark}{prompt}", {}

    def _chat(self, prompt: str) -> str:
        if not prompt:
            raise CheckpointError(
                f"{self.folder} is a chat model, which answers what it is asked. Give a prompt, "
                "such as: Describe this picture in one sentence."
            )
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        with as_checkpoint_errors(self.folder):
            written = self._whole.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
        return written if isinstance(written, str) else str(written[0])


def open_image_processor(folder: Path, backend: ImageBackend) -> Any:  # noqa: ANN401 - untyped
    """Open what makes pixels of pictures; CheckpointError for a backend that is not here."""
    made = AutoImageProcessor.from_pretrained(
        folder, backend=backend, trust_remote_code=False, local_files_only=True
    )
    if (used := getattr(made, "backend", backend)) != backend:
        raise CheckpointError(
            f"image_backend is {backend}, but here {used} alone opens the pictures of {folder}, "
            f"with other values. Say image_backend: {used}, or install what {backend} needs"
        )
    return made
