"""Text-to-video retrieval by a retrieval model that never saw a video (BLIP §5.6).

A video's unit vector is the mean of its frames' projections, normalised after the mean; a match is
judged with the states of all frames in sight. `VqaModel` answers questions about videos.

Shapes: B videos, F frames, P states of a frame, V their width; E projection width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.roles.retrieval import EncodedImages, Retriever


class VideoRetriever(Retriever):
    """A loaded retrieval model that searches videos as if each were one wide image."""

    @torch.inference_mode()
    def encode_images(self, images: Tensor) -> EncodedImages:
        """Read videos: uint8 (B, F, 3, H, W), their frames chosen and resized by `preprocess`.

        The states of a video's frames stand one after the other: (B, F * P, V).
        """
        states = self.image_states(images)
        frames = states.unflatten(1, (images.shape[1], -1)).flatten(0, 1)  # (B * F, P, V)
        projected = self.network.project_images(frames).unflatten(0, images.shape[:2])
        return EncodedImages(states, F.normalize(projected.mean(1), dim=-1))
