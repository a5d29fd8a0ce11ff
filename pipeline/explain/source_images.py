"""Pictures of a run's samples as they came in, out of the input shards, known by their hashes."""

import hashlib
from collections.abc import Iterator, Mapping

from shards.inputs.opening import open_samples
from shards.inputs.shard import InputShard
from shards.inputs.text import TXT, TextSource


def read_source_images(
    shard: InputShard | None, digests: Mapping[int, str], text: TextSource = TXT
) -> Iterator[tuple[int, bytes | str]]:
    """Yield each wanted picture of a shard as bytes, or why there is none; stop after the last.

    `digests`: the SHA-256 of each, by the sample's index; `text` is where the run had its texts
    from, which decides what is a sample. Nothing is raised: each store fails in
    its own way.
    """
    wanted = dict(digests)
    why = "not in the input any more"
    try:
        if shard is None:
            raise FileNotFoundError
        with open_samples(shard, text) as reader:
            for raw in reader:
                digest = wanted.pop(raw.index, None)
                if digest is not None:
                    yield raw.index, _unchanged(raw.image, digest)
                if not wanted:
                    break
    except FileNotFoundError:
        why = "the input shard is gone"
    except Exception as error:  # each store fails in its own way; a page without pictures serves
        why = f"the input shard cannot be read ({type(error).__name__})"
    yield from ((index, why) for index in wanted)


def _unchanged(image: bytes | None, digest: str) -> bytes | str:
    if image is None or hashlib.sha256(image).hexdigest() != digest:
        return "the input has changed since: another picture is there now"
    return image
