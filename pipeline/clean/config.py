"""What decides a cleaning: the sections of its recipe, and the identity that they come to."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, Self

from pydantic import model_validator

from models.captioners.config import CaptionerConfig, CaptionerConfigs
from models.scorers.config import ScorerConfig, ScorerConfigs
from pipeline.clean.export import WriteConfig
from pipeline.clean.judge import JudgeConfig
from pipeline.clean.lists import with_lists
from pipeline.clean.score import first_in_columns
from pipeline.clean.screen import ScreenConfig
from pipeline.config import Config
from shards.run.run import SCREEN
from shards.run.scoring.score_set import check_score_name

# Raised whenever the same recipe, weights and input would give another output.
OUTPUT_VERSION = 3


class CleanConfig(Config):
    """Everything that decides what a run writes."""

    seed: int = 0
    dtype: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    screen: ScreenConfig = ScreenConfig()
    caption: CaptionerConfigs
    score: ScorerConfigs
    judge: JudgeConfig = JudgeConfig()
    write: WriteConfig = WriteConfig()

    @property
    def captioners(self) -> tuple[CaptionerConfig, ...]:
        """All captioners, in the order in which they write."""
        return self.caption if isinstance(self.caption, tuple) else (self.caption,)

    @property
    def scorers(self) -> tuple[ScorerConfig, ...]:
        """All scorers, in the order in which they score."""
        return self.score if isinstance(self.score, tuple) else (self.score,)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        origins = [section.name for section in self.captioners]
        check_names("caption", origins, taken=("web",))
        if strange := sorted(set(self.judge.prefer) - self.judge.threshold.keys()):
            raise ValueError(f"judge.prefer names {strange[0]}, and no text is of that origin")
        check_names("score", scorers := [section.name for section in self.scorers])
        for name in scorers:
            check_score_name(name, "a scorer")
        if missing := sorted(set(origins) - self.judge.threshold.keys()):
            raise ValueError(
                f"judge.threshold has none for the texts of {', '.join(missing)}; add "
                f"judge.threshold.{missing[0]}"
            )
        return self


class KnownCaptioner(Protocol):
    """A captioner, or what is known of it without its weights."""

    @property
    def digest(self) -> str:
        """What covers all that changes its output."""


class KnownScorer(KnownCaptioner, Protocol):
    """A scorer, or what is known of it without its weights."""

    @property
    def scores(self) -> tuple[str, ...]:
        """The names of what it says of each text."""


def identity(
    config: CleanConfig,
    captioners: Sequence[KnownCaptioner],
    scorers: Sequence[KnownScorer],
    text: str = "txt",
    lists: Mapping[str, bytes] | None = None,
) -> dict[str, Any]:
    """Collect what changes the output; models stand by the digest of their content, not by name.

    `text` says where the input's texts stand; `lists` are those of `pipeline.clean.lists`, by name.
    Raises ValueError where no scorer has the score that decides.
    """
    names = [section.name for section in config.scorers]
    check_judge(config.judge.by, names, [scorer.scores for scorer in scorers])
    columns = first_in_columns([scorer.scores for scorer in scorers])
    written = [
        section.identity() | {"digest": known.digest}
        for section, known in zip(config.captioners, captioners, strict=True)
    ]
    scored = [
        section.identity()
        | {"digest": known.digest}
        | ({} if number == columns else {"name": section.name, "scores": list(known.scores)})
        for number, (section, known) in enumerate(zip(config.scorers, scorers, strict=True))
    ]
    named = config.model_dump(
        mode="json", include=set(CleanConfig.model_fields) - {"caption", "score"}
    )
    named |= {"caption": _alone(written), "score": _alone(scored), "input": {"text": text}}
    return with_lists(named, lists or {}) | {"output_version": OUTPUT_VERSION}


def screen_identity(
    config: ScreenConfig, text: str, lists: Mapping[str, bytes] | None = None
) -> dict[str, Any]:
    """Collect what changes the output of a run that only screens."""
    named: dict[str, Any] = {
        "kind": SCREEN,
        "screen": config.model_dump(mode="json"),
        "input": {"text": text},
    }
    named |= {"write": {"clean": "none"}, "output_version": OUTPUT_VERSION}
    return with_lists(named, lists or {})


def check_names(section: str, names: Sequence[str], taken: Sequence[str] = ()) -> None:
    """Raise ValueError for names of models that two have, or that stand for something else."""
    for name in names:
        if name in taken or names.count(name) > 1:
            raise ValueError(
                f"{section} has the name {name!r} {'twice' if name not in taken else 'of others'}; "
                "give each a name of its own"
            )


def check_judge(by: str, names: Sequence[str], scores: Sequence[Sequence[str]]) -> None:
    """Raise ValueError where no scorer has the score that decides."""
    columns = first_in_columns(scores)
    there = [] if columns is None else sorted(scores[columns])
    for number, (name, said) in enumerate(zip(names, scores, strict=True)):
        there += [] if number == columns else [f"{name}.{score}" for score in said]
    if by not in there:
        raise ValueError(
            f"judge.by is {by}, but no scorer of this recipe has such a score; there are: "
            f"{', '.join(there)}"
        )


def _alone(sections: list[dict[str, Any]]) -> dict[str, Any] | list[dict[str, Any]]:
    """Write one section as a recipe with one model has it."""
    return sections[0] if len(sections) == 1 else sections
