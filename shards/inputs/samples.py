"""The samples of several input shards in one stream, with how far through them it is."""

from collections.abc import Iterator, Sequence

from shards.inputs.opening import open_samples
from shards.inputs.reader import RawSample, ShardState
from shards.inputs.shard import InputShard


def read_samples(
    shards: Sequence[InputShard],
) -> Iterator[tuple[InputShard, RawSample | ShardState, float]]:
    """Yield all samples in order, and behind each shard's last one how the shard ended.

    With each comes the share of all shards' bytes that are read so far, from 0 to 1. A shard is
    opened when its turn comes.
    """
    total_bytes = max(sum(shard.size_bytes for shard in shards), 1)
    before_bytes = 0
    for shard in shards:
        share = min(before_bytes / total_bytes, 1.0)
        with open_samples(shard) as reader:
            for raw in reader:
                share = min((before_bytes + raw.end_offset) / total_bytes, 1.0)
                yield shard, raw, share
        yield shard, reader.state, share
        before_bytes += shard.size_bytes
