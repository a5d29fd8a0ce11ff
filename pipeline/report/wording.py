"""What the reason codes mean, in words. The codes themselves are stable; these may improve."""

from collections.abc import Mapping
from typing import Any

from pipeline.printable import count, number_of, percent

HOW_TO_JOIN = "unpack .tar.gz, or sort the members by name (tar --sort=name -cf a.tar -C folder .)"

_LEAST_FOREIGN, _LEAST_FOREIGN_SHARE, _LANGUAGES_NAMED = 5, 0.02, 5


def advice_on_rejected(*, is_apart: bool) -> str:
    """Say what to do where much is rejected, and whether members stand apart there."""
    if is_apart:
        return f"The members of samples stand apart, in shards that are streams: {HOW_TO_JOIN}"
    return "Look at the input and the checkpoints"


def shown_languages(
    languages: Mapping[str, Mapping[str, int]], most: int
) -> list[tuple[str, Mapping[str, int]]]:
    """List the commonest languages, and the rest in one row."""
    rows = list(languages.items())
    if len(rows) <= most + 1:
        return rows
    rest = [texts for _, texts in rows[most:]]
    added = {name: sum(texts[name] for texts in rest) for name in rest[0]}
    return [*rows[:most], (f"{len(rest)} other languages", added)]


def warning_of_languages(statistics: Mapping[str, Any]) -> str | None:
    """Say what an English filter did to texts of other languages, if there are more than a few."""
    if not statistics.get("english_filter"):
        return None
    judged = {name: texts for name, texts in statistics["languages"].items() if texts["in"]}
    foreign = {name: texts for name, texts in judged.items() if name not in ("en", "und")}
    total = sum(texts["in"] for texts in judged.values())
    number, kept = (sum(texts[name] for texts in foreign.values()) for name in ("in", "kept"))
    if number < max(_LEAST_FOREIGN, _LEAST_FOREIGN_SHARE * total):
        return None
    named = [f"{name} {count(texts['in'])}" for name, texts in foreign.items()]
    if (others := len(named) - _LANGUAGES_NAMED) > 0:
        named[_LANGUAGES_NAMED:] = [f"{number_of(others, 'other')}"]
    return (
        f"{count(number)} of {number_of(total, 'web text')} ({percent(number, total)}) are not "
        f"English ({', '.join(named)}), and the filter knows English alone: {count(number - kept)} "
        f"of these {count(number)} are dropped, whatever they say. Their pictures can be captioned "
        "and their texts left out with a reason (text_language): --set screen.languages=en; or "
        "judge by a scorer that knows their languages"
    )


MEANING = {
    # samples
    "unsafe_member": "an unsafe name or kind of member, or an absurd size",
    "duplicate_key": "the key came before, with a member that it has again",
    "not_adjacent": "members of one key stand apart, where they cannot be joined",
    "shard_truncated": "the shard is cut off in this sample",
    "shard_corrupt": "the shard is damaged in this sample",
    "image_missing": "no image",
    "image_empty": "an image of 0 bytes",
    "image_undecodable": "the codec gives up",
    "image_truncated": "the image is cut off",
    "format_not_allowed": "an image, but not JPEG, PNG, WebP or GIF",
    "image_too_small": "too few pixels on the shorter side",
    "image_too_large": "too many pixels, by the header",
    "image_aspect": "too long for its width",
    "image_blank": "one flat colour",
    "image_blocked": "on the list of what must never show",
    "decode_timeout": "decoding took too long",
    "decoder_crash": "the picture crashes the decoder",
    "duplicate_image": "the same picture as another",
    "skipped": "on the skip-list",
    # web texts
    "text_missing": "no text in the input",
    "text_empty": "nothing to be seen, or not one token",
    "text_not_utf8": "not UTF-8",
    "text_too_long": "more bytes than the recipe allows",
    "text_language": "in a language that the recipe keeps out",
    # decisions
    "kept": "at or above its threshold",
    "itm_below_threshold": "matches the picture too little",
    "score_below_threshold": "by the view's scores and condition, too little",
    "not_preferred": "the sample keeps texts of an origin that comes first",
    "score_not_finite": "no finite score to judge by",
    "caption_empty": "an empty text",
    "caption_refused": "a text that the captioner would not write",
    "duplicate_text": "the same as an earlier text of the sample",
    "text_too_short": "fewer words than the recipe wants",
    "repetitive": "one word again and again",
    "banned_word": "holds a banned word",
    # conversions
    "exif_transposed": "turned upright, as its EXIF says",
    "first_frame_used": "animated; the first frame was used",
    "later_frame_used": "animated; the first frame that shows something was used",
    "end_mark_missing": "all pixels are there, but not the mark at the end",
    "alpha_on_white": "transparent; laid on white",
    "cmyk_converted": "CMYK, turned into RGB",
    "scaled_16_bit": "16 bits, scaled to 8",
    "low_levels_raised": "8 to 12 bits in 16, scaled by their own range",
    "bom_stripped": "byte order mark taken off the text",
    "text_cleaned": "mended, unseen characters taken out, put on one line",
    "json_unreadable": "the sidecar is not readable JSON",
    "json_repaired": "the sidecar was no strict JSON, and could be mended",
    "json_too_large": "the sidecar is too large to keep",
}
