"""What decides a cleaning: names that fit together, and an identity that old recipes keep."""

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.clean.config import CleanConfig, identity
from shards.run.run import fingerprint

BLIP = {"caption": {"model": "c"}, "score": {"model": "f"}}
GUEST = {"kind": "transformers", "name": "florence", "model": "g", "prompt": "<CAPTION>"}
SIGLIP = {"kind": "dual_encoder", "name": "siglip", "model": "s"}
JUDGED = {"threshold": {"florence": 0.5}}
ITM = ("itm", "itm_logit", "itc")


def known(digest: str, scores: tuple[str, ...] = ()) -> Any:
    return SimpleNamespace(digest=digest, scores=scores)


def identity_of(*scorers: Any, **sections: Any) -> dict[str, Any]:
    config = CleanConfig.model_validate(BLIP | sections)
    captioners = [known(str(number)) for number in range(len(config.captioners))]
    return identity(config, captioners, scorers or [known("f", ITM)])


def test_blip_alone_has_the_identity_that_it_had() -> None:
    said = identity_of()
    assert said["score"] == {"max_tokens": 35, "digest": "f"}
    assert "kind" not in said["caption"]
    assert "name" not in said["caption"]
    assert {"by", "prefer"}.isdisjoint(said["judge"])
    written = [BLIP["caption"] | {"kind": "blip", "name": "synthetic"}]
    assert identity_of(caption=written) == said, "a list of one is that one"


def test_what_guests_add_to_it() -> None:
    both = [BLIP["score"], SIGLIP]
    scorers = known("f", ITM), known("s", ("cosine", "prob"))
    said = identity_of(*scorers, caption=[BLIP["caption"], GUEST], score=both, judge=JUDGED)
    assert [each["digest"] for each in said["caption"]] == ["0", "1"]
    assert said["caption"][1]["prompt"] == "<CAPTION>"
    assert "scores" not in said["score"][0]
    assert said["score"][1] | {"name": "siglip", "scores": ["cosine", "prob"]} == said["score"][1]
    assert not any("model" in each for each in [*said["caption"], *said["score"]])
    moved = [BLIP["caption"], GUEST | {"model": "elsewhere"}]
    same = identity_of(*scorers, caption=moved, score=both, judge=JUDGED)
    assert fingerprint(same) == fingerprint(said)
    other = [BLIP["caption"], GUEST | {"candidates": 2}]
    more = identity_of(*scorers, caption=other, score=both, judge=JUDGED)
    assert fingerprint(more) != fingerprint(said)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"caption": [{"model": "a"}, {"model": "b"}]}, "caption has the name 'synthetic' twice"),
        ({"caption": GUEST}, r"add judge\.threshold\.florence"),
        ({"caption": {"model": "a", "name": "web"}}, "the name 'web' of others"),
        ({"score": [SIGLIP, SIGLIP]}, "score has the name 'siglip' twice"),
        ({"score": SIGLIP | {"name": "text"}}, "a column of the run's own tables"),
        ({"judge": {"prefer": ["human"]}}, "judge.prefer names human"),
    ],
)
def test_sections_that_do_not_fit_together(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        CleanConfig.model_validate(BLIP | sections)


def test_the_score_that_decides_must_be_there() -> None:
    siglip = known("s", ("cosine",))
    with pytest.raises(ValueError, match=r"judge\.by is itm, but no .* there are: siglip\.cosine"):
        identity_of(siglip, score=SIGLIP)
    with pytest.raises(ValueError, match=r"judge\.by is siglip\.prob, but no"):
        identity_of(siglip, score=SIGLIP, judge={"by": "siglip.prob"})
    assert identity_of(siglip, score=SIGLIP, judge={"by": "siglip.cosine"})["judge"]["by"]
