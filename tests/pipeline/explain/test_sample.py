"""A sample explained: what the run's tables hold, and the nearest where there is none."""

import pytest

from pipeline.explain.sample import NoSuchSample, explain
from pipeline.views.rejudge import rejudge
from pipeline.views.request import ViewRequest
from shards.run.run import Run
from shards.run.snapshot import open_snapshot
from tests.support.explained_run import HOSTILE, sample_of


def test_texts_have_the_decisions_of_every_view(explained_run: Run) -> None:
    request = ViewRequest("none", {"web": 1.1, "synthetic": 1.1})
    rejudge(explained_run, request, open_snapshot(explained_run), lambda _: None)
    found = explain(explained_run, "00000/000000003")
    assert [view["name"] for view in found["views"]] == ["own", "none"]
    (sample,) = found["samples"]
    assert [text["origin"] for text in sample["texts"]] == ["web", "synthetic"]
    for text in sample["texts"]:
        own, none = text["decisions"]["own"], text["decisions"]["none"]
        assert own["keep"] == (text["itm"] >= own["threshold"])
        assert none == {"keep": False, "reason": "itm_below_threshold", "threshold": 1.1}
    kept = any(text["decisions"]["own"]["keep"] for text in sample["texts"])
    assert list(sample["clean"]) == (["own"] if kept else [])


def test_a_rejected_sample_has_its_reason_and_no_text(explained_run: Run) -> None:
    rejected = sample_of(explained_run, "hostile/i")
    assert (rejected["status"], rejected["reason"]) == ("rejected", "image_undecodable")
    assert (rejected["texts"], rejected["clean"]) == ([], {})
    web = sample_of(explained_run, "hostile/h.png")["texts"][0]  # as the clean tar names it
    assert web["text"] == HOSTILE.replace("\u202e", "")


def test_a_shard_has_the_name_of_its_file_too(explained_run: Run) -> None:
    expected = explain(explained_run, "00000/000000003")
    (url,) = [shard.url for shard in explained_run.inputs if shard.shard == "00000"]
    for named in ("00000.tar", "/".join(url.split("/")[-2:]), url):
        assert explain(explained_run, f"{named}/000000003") == expected


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("00000", "names no sample; expected SHARD/KEY, such as 00000/0"),
        ("000000003", "expected SHARD/KEY, such as 00000/000000003$"),
        ("/x", "names no sample; expected SHARD/KEY, such as 00000/0"),
        ("0000/x", "has no shard '0000'; the nearest: 00000"),
        ("00000/000000033", "no key '000000033'; the nearest: '000000003'"),
    ],
)
def test_an_address_that_leads_nowhere_names_the_nearest(
    explained_run: Run, address: str, said: str
) -> None:
    with pytest.raises(NoSuchSample, match=said):
        explain(explained_run, address)
