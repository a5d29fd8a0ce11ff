"""How sources of training samples are opened, and how their parts are read."""

import hashlib
from collections import Counter
from collections.abc import Generator, Iterator

from shards.inputs.listing import list_inputs
from shards.inputs.opening import SampleReader, open_samples
from shards.inputs.reader import State
from shards.inputs.shard import InputOptions, InputShard
from shards.inputs.text import TXT, TextSource
from shards.naming import encode_name
from shards.reasons import SampleReason
from shards.store import filesystem, url_of
from shards.training.annotation import annotated_texts
from shards.training.annotation_file import (
    Annotation,
    Annotations,
    check_there,
    read_annotations,
)
from shards.training.json_file import without_endings
from shards.training.left_out import LeftOut, Unusable
from shards.training.picture_folder import picture_folder
from shards.training.picture_name import NamesTogether
from shards.training.run_source import check_run, open_run, read_clean, read_judged
from shards.training.source import (
    AnnotatedRows,
    Part,
    Source,
    SourceConfig,
    SourceError,
    SourceSample,
    changed,
)

_LOOKED_AT = 10  # rows of an annotation file whose pictures are looked for at once
_ANNOTATIONS_PER_PART = 256  # parts are shuffled, and dealt to lanes


def open_source(config: SourceConfig) -> Source:
    """Find a source's parts and count its samples; human-annotated tars are read through for it.

    Raises SourceError, and what opening a run, a view, annotations or a list of shards raises.
    """
    if config.annotations is not None:
        source = _open_annotations(config.annotations, config)
    else:
        source = open_run(config) if config.shards is None else _open_shards(config)
    if not source.rows:
        where = config.run or config.annotations or ", ".join(config.shards or ())
        total = sum(source.left_out.values())
        raise SourceError(
            f"{where}: no sample to train on. Of {total:,} each was left out: {source.left_out}; "
            f"damaged: {source.damaged or 'none'}. Mend what is told here, or leave the source out"
        )
    return source


def check_source(config: SourceConfig) -> None:
    """Raise what opening a source would where its name leads nowhere; no sample is read."""
    if config.run is not None:
        check_run(config)
    elif config.annotations is not None:
        check_there(config.annotations, config.answers)
    else:
        options = InputOptions(text=TextSource.parse(config.text))
        list_inputs(config.shards or (), config.root, options)


def read_part(part: Part) -> Generator[SourceSample, None, None]:
    """Yield a part's samples in the order of its tar, one in memory at a time.

    Raises InputChanged if they are not those that the source was opened with.
    """
    if part.listed is not None:
        yield from _listed(part, part.listed)
        return
    count = 0
    with open_samples(part.source, part.text) as reader:
        for sample in _samples(part, reader):
            count += 1
            if count > part.rows:
                raise changed(part, f"{part.rows} samples", "more of them")
            yield sample
        if count != part.rows:
            raise changed(part, f"{part.rows} samples", f"{count}")
        if part.sha256 is not None and reader.sha256 != part.sha256:
            raise changed(part, f"sha256 {part.sha256}", reader.sha256)


def _samples(part: Part, reader: SampleReader) -> Iterator[SourceSample]:
    if part.tables is not None:
        return read_judged(part, part.tables, reader)
    return read_clean(part, reader) if part.is_clean else _annotated(part.shard, reader, Counter())


def _open_shards(config: SourceConfig) -> Source:
    left_out, text = LeftOut(), TextSource.parse(config.text)
    parts, damaged = [], {}
    lines = [] if text == TXT else [f"{config.text}\n"]
    for listed in list_inputs(config.shards or (), config.root, InputOptions(text=text)):
        part, state = _counted(listed, text, left_out)
        lines.append(f"{part.shard}\t{part.sha256}\n")
        if state != State.COMPLETE:
            damaged[part.shard] = str(state)
        if part.rows:
            parts.append(part)
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return Source(f"shards:{digest[:32]}", tuple(parts), config.repeat, left_out, damaged)


def _counted(listed: InputShard, text: TextSource, left_out: Counter[str]) -> tuple[Part, State]:
    with open_samples(listed, text) as reader:
        rows = sum(1 for _ in _annotated(listed.shard, reader, left_out))
    part = Part(listed.shard, listed.url, rows, reader.sha256, text=text, input=listed)
    return part, reader.state.state


def _annotated(shard: str, reader: SampleReader, left_out: Counter[str]) -> Iterator[SourceSample]:
    """Yield what can be used of a human-annotated tar, and count what cannot."""
    for raw in reader:
        texts, reason = annotated_texts(raw)
        key = f"{shard}/{encode_name(raw.key)}"
        if not raw.image:
            empty = raw.image is not None
            reason = SampleReason.IMAGE_EMPTY if empty else SampleReason.IMAGE_MISSING
        reason = raw.reason or reason
        if reason or not raw.image:
            left_out[Unusable(reason, key)] += 1
        else:
            yield SourceSample(key, raw.image, texts)


def _open_annotations(url: str, config: SourceConfig) -> Source:
    annotations = read_annotations(url, config.split, config.answers)
    fs, path = filesystem(url)
    folder, _, name = path.rpartition("/")
    images = url_of(*filesystem(config.images)) if config.images else url_of(fs, folder)
    _check_pictures(url, images, annotations)
    shard, size = encode_name(without_endings(name)), _ANNOTATIONS_PER_PART
    parts = tuple(
        Part(
            shard,
            url_of(fs, path),
            min(size, len(annotations.rows) - first),
            annotations.sha256,
            listed=AnnotatedRows(images, first, config.split, config.answers),
        )
        for first in range(0, len(annotations.rows), size)
    )
    name = f"annotations:{annotations.sha256[:32]}"
    return Source(name, parts, config.repeat, annotations.left_out, {}, annotations.kind)


def _check_pictures(url: str, images: str, annotations: Annotations) -> None:
    """Raise SourceError if none of the first pictures is there: the folder is another one."""
    rows, folder = annotations.rows[:_LOOKED_AT], picture_folder(images)
    reads = [folder.read(row.pictures[0], annotations.names) for row in rows]
    reasons = [read for read in reads if isinstance(read, Unusable)]
    if rows and len(reasons) == len(rows):
        raise SourceError(
            f"{url}: none of the pictures of its first {len(rows)} rows is in {images} (the first: "
            f"{reasons[0].example}); set images to the folder that these names start from"
        )


def _listed(part: Part, listed: AnnotatedRows) -> Iterator[SourceSample]:
    annotations = read_annotations(part.url, listed.split, listed.answers)
    if annotations.sha256 != part.sha256:
        raise changed(part, f"sha256 {part.sha256}", annotations.sha256)
    for number in range(listed.first, listed.first + part.rows):
        row = annotations.rows[number]
        image, *right = _pictures(listed.images, row, annotations.names)
        key = f"{part.shard}/{number:09d}"
        yield SourceSample(key, image, row.texts, right[0] if right else None)


def _pictures(images: str, row: Annotation, names: NamesTogether) -> Iterator[bytes]:
    """Read a row's pictures; one that is missing is empty."""
    for name in row.pictures:
        picture = picture_folder(images).read(name, names)
        yield b"" if isinstance(picture, Unusable) else picture.data
