"""Texts to token ids and back: BERT WordPiece with BLIP's two extra tokens.

[DEC] opens a caption and [ENC] an image-grounded text; checkpoints give them the two ids behind
the vocabulary, whether or not the vocabulary names them.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from models.blip.vocabulary_file import read_tokenizer, read_words

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_EXTRA = ("[DEC]", "[ENC]")
_SIGNS = '.!"()*#:;~'
_TO_SPACES = str.maketrans(dict.fromkeys(_SIGNS, " "))
_TO_NOTHING = str.maketrans(dict.fromkeys(_SIGNS))
_QUESTION_WORDS = 50  # at most
_SPACES = re.compile(r"\s{2,}")


def normalise(text: str) -> str:
    """Write a text as the models know it: BLIP's `pre_caption` without its limit on words."""
    return _SPACES.sub(" ", text.lower().translate(_TO_SPACES)).rstrip("\n").strip(" ")


def normalise_question(text: str) -> str:
    """Write a question as the models know it: BLIP's `pre_question`."""
    words = text.lower().translate(_TO_NOTHING).rstrip(" ").split(" ")
    return " ".join(words[:_QUESTION_WORDS])


class WordPiece:
    """A WordPiece vocabulary with the special ids that BLIP needs."""

    def __init__(self, tokenizer: Tokenizer, dec_id: int | None = None) -> None:
        """Wrap a tokenizer; without `dec_id`, [DEC] must be in its vocabulary."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.pad_id, self.cls_id, self.sep_id = (
            self._known(name) for name in ("[PAD]", "[CLS]", "[SEP]")
        )
        self.dec_id = self._known("[DEC]") if dec_id is None else dec_id
        named = tokenizer.token_to_id("[ENC]")
        self.enc_id = self.dec_id + 1 if named is None else named

    def _known(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"the vocabulary lacks {token}")
        return int(found)

    @property
    def size(self) -> int:
        """Number of ids in the vocabulary, [DEC] and [ENC] included."""
        return max(self._tokenizer.get_vocab_size(), self.enc_id + 1)

    @property
    def highest_id(self) -> int:
        """The highest id that a text or a frame can have."""
        return max(*self._tokenizer.get_vocab().values(), self.dec_id, self.enc_id)

    @property
    def config_fields(self) -> dict[str, int]:
        """What a network's config says of its vocabulary, as `blip_config` takes it."""
        return {"vocab_size": self.size, "sep_id": self.sep_id, "pad_id": self.pad_id}

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into ids, without special tokens and without a limit."""
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Turn ids into texts; special tokens fall away."""
        known = self._tokenizer.get_vocab_size()
        rows = [[token for token in row if token < known] for row in ids]
        return self._tokenizer.decode_batch(rows, skip_special_tokens=True)

    def to_json(self) -> str:
        """Write the content of a tokenizer.json."""
        return self._tokenizer.to_str(pretty=True)


def load(folder: Path, dec_id: int | None = None) -> WordPiece:
    """Read tokenizer.json, or else vocab.txt (lower case), of a folder; ValueError if it cannot."""
    return WordPiece(_read_file(source(folder)), dec_id)


def extend(path: Path) -> WordPiece:
    """Read a folder's or a file's vocabulary, adding [DEC] and [ENC] behind it where they lack.

    This is what the original BLIP does to BERT's vocabulary. ValueError if it cannot be read.
    """
    return _finish(_read_file(source(path) if path.is_dir() else path))


def source(folder: Path) -> Path:
    """Name the file that holds the vocabulary of a folder; ValueError if there is none."""
    for name in ("tokenizer.json", "vocab.txt"):
        if (folder / name).exists():
            return folder / name
    raise ValueError("neither tokenizer.json nor vocab.txt is there")


def train(corpus: Iterable[str], vocab_size: int) -> WordPiece:
    """Learn a vocabulary of at most `vocab_size` ids, special tokens included, from texts."""
    texts = [normalise(text) for text in corpus]
    learner = _empty(models.WordPiece(unk_token="[UNK]"))
    letters = sorted(set("".join(map(learner.normalizer.normalize_str, texts))) - {" "})
    # the library numbers the continuing letters in the order of a hash table, which then decides
    # ties; named beforehand, their numbers are the same in each run
    fixed = [*_SPECIAL, *(f"##{letter}" for letter in letters)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size - len(_EXTRA),
        special_tokens=fixed,
        show_progress=False,
        continuing_subword_prefix="##",
    )
    learner.train_from_iterator(texts, trainer)
    return _finish(_empty(models.WordPiece(learner.get_vocab(), unk_token="[UNK]")))


def _read_file(path: Path) -> Tokenizer:
    if path.suffix == ".json":
        return read_tokenizer(path)
    return _empty(models.WordPiece(read_words(path), unk_token="[UNK]"))


def _empty(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    present = [token for token in _SPECIAL if tokenizer.token_to_id(token) is not None]
    tokenizer.add_special_tokens(present)
    return tokenizer


def _finish(tokenizer: Tokenizer) -> WordPiece:
    """Add BLIP's tokens behind the vocabulary, and the frame that other libraries expect."""
    tokenizer.add_special_tokens(list(_EXTRA))
    frame = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=frame
    )
    return WordPiece(tokenizer)
