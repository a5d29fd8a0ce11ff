"""What all roles share: a loaded checkpoint, and how texts and images get into its network."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import ClassVar, Generic, Protocol, TypedDict, TypeVar, cast

import torch
from torch import Tensor, nn

from models.blip import framing
from models.blip.config import DtypeChoice
from models.blip.image_encoder import ImageEncoder, See
from models.blip.products.packed import can_pack, copy_out, pack_linears
from models.blip.text import TextDecoder, TextTransformer
from models.blip.vision import VisionTower
from models.checkpoints.checkpoint import Checkpoint


class _Seeing(Protocol):
    vision_model: VisionTower

    def modules(self) -> Iterator[nn.Module]:
        """List all parts."""

    def children(self) -> Iterator[nn.Module]:
        """List the parts that are not of others."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """List the weights, each once."""

    def buffers(self) -> Iterator[Tensor]:
        """List what is saved beside them."""


NetworkT = TypeVar("NetworkT", bound=_Seeing)


class LoadOptions(TypedDict, total=False):
    """How a role is loaded: `dtype`, by default "auto" (see `resolve_dtype`), and `device`, cpu."""

    dtype: DtypeChoice
    device: str | torch.device


class LoadedModel(Generic[NetworkT]):
    """A loaded checkpoint in one role.

    `digest` covers all that changes its output; `preprocess` makes images ready for it;
    `max_tokens` limits a text, special tokens included; `first_id` begins a text that is read with
    an image in sight.
    """

    network_types: ClassVar[tuple[type[nn.Module], ...]]
    network: NetworkT

    def __init__(self, loaded: Checkpoint, max_tokens: int | None = None) -> None:
        """Prepare a loaded checkpoint; `max_tokens` None: as many as the network reads.

        CheckpointError if the network is not the role's, ValueError if the limit does not fit it.
        """
        self.network = cast(NetworkT, loaded.network_as(*self.network_types))
        for part in self.network.modules():
            if isinstance(part, TextTransformer):
                part.lay_together()
        self.description = loaded.description
        self.max_tokens = self.description.positions if max_tokens is None else max_tokens
        self.description.check_max_tokens(self.max_tokens)
        self.digest, self.preprocess = loaded.digest, self.description.preprocess
        self._encoder = ImageEncoder(self.network.vision_model, self.preprocess)
        self.tokenizer, self.settings = self.description.tokenizer, self.description.settings
        self.first_id = self.settings.first_id(self.tokenizer)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.vision_model.post_layernorm.weight.device

    def image_states(self, images: Tensor) -> Tensor:
        """Compute states (B, P, V) of images, uint8 (B, 3, H, W), resized by `preprocess`.

        Videos (B, F, 3, H, W) have states (B, F * P, V): one frame after the other.
        """
        return self._encoder(images)

    def compile(self, compiler: Callable[[See], See] = torch.compile) -> None:
        """Compile the vision tower, for a long run on a GPU: see `ImageEncoder.compile`."""
        self._encoder.compile(compiler)

    @property
    def is_compiled(self) -> bool:
        """Whether the vision tower is compiled; known after a first batch."""
        return self._encoder.is_compiled

    @torch.inference_mode()
    def warm_up(self, count: int) -> None:
        """See so many blank pictures, so that no batch of that size waits for a compiler."""
        way = self.preprocess
        blank = torch.zeros(count, 3, way.height, way.width, dtype=torch.uint8)
        self.image_states(blank)

    def only_read(self, dtype: DtypeChoice) -> None:
        """Read faster on a CPU, and neither train nor save: packed, and seeing in int8 if asked."""
        network = self.network
        # of tiny ones nothing is, and what was laid together would lie apart
        is_packed = any(can_pack(weight) for weight in network.vision_model.parameters())
        if is_packed:  # else its file's pages stay, which all processes of a machine share
            copy_out(bias for bias in network.parameters() if bias.dim() == 1)  # packed as they are
        if dtype == "int8":
            self._encoder.quantise()
        pack_linears(network.vision_model)
        for part in network.children():
            if isinstance(part, TextTransformer):
                pack_linears(part)
            elif isinstance(part, TextDecoder):
                part.pack()
        if is_packed:
            copy_out(chain(network.parameters(), network.buffers()))

    def tokenize(self, texts: Sequence[str], first_id: int) -> framing.TokenBatch:
        """Tokenise texts that are normalised already; see `frame`."""
        return self.frame(self.tokenizer.encode(texts), first_id)

    def frame(self, pieces: Sequence[Sequence[int]], first_id: int) -> framing.TokenBatch:
        """Put ids between `first_id` and [SEP], cut them to `max_tokens` and pad to the longest."""
        return framing.tokenize_batch(
            pieces, self.tokenizer, first_id, self.max_tokens, self.device
        )
