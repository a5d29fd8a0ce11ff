"""What the field's caption metrics need Java for: the PTB tokenizer, and METEOR.

Both jars come with pycocoevalcap. Without a `java` program numbers are computed on words split by
`metrics.words`, which differ a little from published ones (docs/evaluation.md), and METEOR is left
out. SPICE is left out always: it downloads models of its own.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.tokenizer import ptbtokenizer

from shards.errors import CapfiltError

_TIMEOUT_S = 1_800
_BREAKS = str.maketrans(dict.fromkeys("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029", " "))


class JavaError(CapfiltError, RuntimeError):
    """A Java program that did not do what it was asked for."""


def is_there() -> bool:
    """Check for a `java` program."""
    return shutil.which("java") is not None


def split_ptb(texts: Sequence[str]) -> list[list[str]]:
    """Split texts by the PTB tokenizer, in lower case and without signs, as COCO's metrics do."""
    lines = [text.translate(_BREAKS) for text in texts]
    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    tool = ("edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase")
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(jar), *tool]
    try:
        done = subprocess.run(  # noqa: S603 - no shell; texts go in by standard input
            command,
            input="\n".join([*lines, ""]).encode(),
            capture_output=True,
            check=True,
            timeout=_TIMEOUT_S,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise JavaError(f"the PTB tokenizer failed: {error}; try --no-java") from error
    split = done.stdout.decode("utf-8", "replace").split("\n")[: len(lines)]
    if len(split) != len(lines):
        raise JavaError(f"the PTB tokenizer gave {len(split)} lines for {len(lines)} texts")
    signs = set(ptbtokenizer.PUNCTUATIONS)
    return [[word for word in line.split() if word not in signs] for line in split]


def meteor(written: Sequence[str], references: Sequence[Sequence[str]]) -> float | None:
    """Compute METEOR of split texts, words apart, one for each picture, with its references."""
    if not written:
        return None
    scorer = Meteor()
    by_image = {n: [_plain(text) for text in texts] for n, texts in enumerate(references)}
    made = {n: [_plain(text)] for n, text in enumerate(written)}
    try:
        return float(scorer.compute_score(by_image, made)[0])
    except (OSError, ValueError) as error:
        raise JavaError(f"METEOR failed: {error}; try --no-java") from error


def _plain(text: str) -> str:
    """Leave out the sign that METEOR's own lines are split by; it waits for ever for no words."""
    return text.translate(_BREAKS).replace("|", " ").strip() or "-"
