"""What people name as input is found whole, or refused by its name with what to do."""

import os
import socket
from pathlib import Path

import pytest

from shards.errors import UsageError
from shards.inputs.listing import list_inputs
from shards.inputs.names import stem
from shards.inputs.shard import InputError, InputShard


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def shards(*inputs: str | Path) -> list[str]:
    return [shard.shard for shard in list_inputs([str(name) for name in inputs])]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.tar", "a"),
        ("a.TAR", "a"),
        ("a.tar.gz", "a"),
        ("a.Tar.GZ", "a"),
        ("a.tgz", "a"),
        ("a.TGZ", "a"),
        ("a.tar.tar", "a.tar"),
        ("a.gz", "a.gz"),
        ("atar", "atar"),
        ("tar", "tar"),
    ],
)
def test_the_ending_of_a_tar_falls_away_in_any_case(name: str, expected: str) -> None:
    assert stem(name) == expected


def test_tars_are_found_by_their_endings_in_any_case(tmp_path: Path) -> None:
    make(tmp_path, "a.tar", "b.TAR", "c.tar.gz", "d.TGZ", "sub/e.Tar", "f.tar.part", "tar", "g.gz")
    assert shards(tmp_path) == ["a", "b", "c", "d", "sub%2Fe"]
    assert shards(f"{tmp_path}/*") == ["a", "b", "c", "d"]


@pytest.mark.parametrize("other", ["a.tar.gz", "a.TAR", "a.tgz"])
def test_tars_that_differ_by_their_endings_alone_are_told(tmp_path: Path, other: str) -> None:
    make(tmp_path, "a.tar", other, "b.tar")
    with pytest.raises(InputError, match=r"'a'.*differ by their endings alone: rename or remove"):
        shards(tmp_path)


@pytest.mark.parametrize("name", ["", "\0", "a\0.tar", "file://"])
def test_what_names_nothing_is_refused_by_name(name: str) -> None:
    with pytest.raises(InputError, match="is no path or URL"):
        list_inputs([name])


def test_home_folders_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "web/a.tar", "$X/b.tar")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("X", "web")
    assert shards("~/web") == ["a"]
    assert shards("~/*/a.tar") == ["web%2Fa"]
    assert shards("file://~/web/a.tar") == ["a"]
    assert list_inputs(["~/web"], root="~")[0].shard == "web%2Fa"
    assert shards("~/$X") == ["b"]  # variables are the shell's
    with pytest.raises(InputError, match=r"no user of that name here; a folder is \./~nobody-here"):
        list_inputs(["~nobody-here/web"])


def test_a_folder_that_begins_with_a_tilde_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "~my-backup/a.tar", "b/~c.tar")
    monkeypatch.chdir(tmp_path)
    assert shards("~my-backup") == ["a"]
    assert shards("b/~*.tar") == ["%7Ec"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("data [v1]", ["00000", "00001"]),
        ("data [v1]/*.tar", ["00000", "00001"]),
        ("data [v1]/{00000..00001}.tar", ["00000", "00001"]),
        ("a{1}/x.tar", ["x"]),
        ("a{1}/*.tar", ["x"]),
        ("a{1,2}/[xy].tar", ["x"]),  # there is a folder of that name
        ("why?/s*/*.tar", ["sub%2Fz"]),
        ("st*r/a[1]/**/*.tar", ["deep%2Fer%2Fq"]),
        ("{data [v1],a{1}}/*.tar", ["a%7B1%7D%2Fx", "data%20%5Bv1%5D%2F00000"]),
        ("x[1].tar", ["x%5B1%5D"]),
        ("b[12]/*.tar", ["b1%2Fm", "b2%2Fn"]),
    ],
)
def test_signs_of_patterns_in_names_that_exist_are_literal(
    tmp_path: Path, pattern: str, expected: list[str]
) -> None:
    make(tmp_path, "data [v1]/00000.tar", "data [v1]/00001.tar", "datav/9.tar", "data1/9.tar")
    make(tmp_path, "a{1}/x.tar", "a1/9.tar", "a{1,2}/x.tar", "a2/9.tar", "why?/sub/z.tar")
    make(tmp_path, "whyn/s/9.tar", "st*r/a[1]/deep/er/q.tar", "star/a1/9.tar")
    make(tmp_path, "x[1].tar", "x1.tar", "b1/m.tar", "b2/n.tar")
    if pattern.startswith("{"):
        (tmp_path / "data [v1]" / "00001.tar").unlink()
    assert shards(f"{tmp_path}/{pattern}") == expected


def test_a_run_inside_the_input_is_left_out_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, "a.tar", "sub/b.tar", "out/run.json", "out/recipe.yaml", "out/data/clean/c.tar")
    make(tmp_path, "old/runs/1/run.json", "old/runs/1/views/v/clean/d.tar", "sub/run.json.tar")
    for _ in range(2):
        assert shards(tmp_path) == ["a", "sub%2Fb", "sub%2Frun%2Ejson"]
    (said,) = caplog.messages
    assert f"files of runs are left out (a run.json marks them): {tmp_path}/old/runs/1, " in said
    assert said.endswith(f"{tmp_path}/out")
    assert shards(f"{tmp_path}/**/*.tar") == shards(tmp_path)


def test_a_first_look_inside_the_input_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, "a.tar", "try/recipe.yaml", "try/run/run.json", "try/run/data/clean/b.tar")
    make(tmp_path, "try/input/c.tar", "run/run.json", "run/run/d.tar", "runs/e.tar")
    assert shards(tmp_path) == ["a", "runs%2Fe"]
    (tmp_path / "try" / "recipe.yaml").unlink()
    assert shards(tmp_path) == ["a", "runs%2Fe", "try%2Finput%2Fc"]


def test_a_run_whose_tars_are_named_is_read(tmp_path: Path) -> None:
    make(tmp_path, "run.json", "recipe.yaml", "data/clean/c.tar")
    assert shards(tmp_path / "data" / "clean") == ["c"]
    assert shards(f"{tmp_path}/data/*/*.tar") == ["clean%2Fc"]
    with pytest.raises(InputError, match=r"is the folder of a run.*clean\.txt"):
        shards(tmp_path)
    (tmp_path / "recipe.yaml").unlink()  # a stranger's run.json
    assert shards(tmp_path) == ["data%2Fclean%2Fc"]


def test_nothing_but_the_tars_of_a_run(tmp_path: Path) -> None:
    make(tmp_path, "out/run.json", "out/data/clean/c.tar")
    with pytest.raises(InputError, match=r"no \*\.tar.*found there"):
        shards(tmp_path)


@pytest.mark.parametrize("pattern", ["", "/*.tar", "/**/*.tar"])
def test_folders_named_like_tars_are_walked_or_told(
    tmp_path: Path, pattern: str, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, "a.tar", "full.tar/b.tar", "pictures.tar/c.npy")
    assert shards(f"{tmp_path}{pattern}") == ["a", "full%2Etar%2Fb"]
    if pattern != "/**/*.tar":  # which matches what lies in folders, not folders
        assert f"{tmp_path}/pictures.tar: named like a tar, but a folder" in caplog.text


def test_a_folder_named_like_a_tar_by_itself(tmp_path: Path) -> None:
    make(tmp_path, "full.tar/b.tar", "none.tar/c.npy", "pictures.tar/c.jpg")
    assert shards(tmp_path / "full.tar") == ["b"]
    with pytest.raises(InputError, match=r"no \*\.tar.*no picture.*there are 1 \.npy"):
        shards(tmp_path / "none.tar")
    (found,) = list_inputs([str(tmp_path / "pictures.tar")])
    assert (found.kind, found.shard) == ("folder", "00000")


def test_folders_that_a_pattern_matches_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, "a.tar", "day1/b.tar", "day2/c.tar")
    assert shards(f"{tmp_path}/*") == ["a"]
    assert f"not walked: {tmp_path}/day1, {tmp_path}/day2; name them" in caplog.text
    with pytest.raises(InputError, match=r"there are folders \(.*day1, .*day2"):
        shards(f"{tmp_path}/day*")


def test_links_are_followed_and_dead_ones_named(tmp_path: Path) -> None:
    make(tmp_path, "disk/a.tar", "web/b.tar")
    (tmp_path / "web" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "web" / "c.tar").symlink_to(tmp_path / "disk" / "a.tar")
    assert shards(tmp_path / "web") == ["b", "c", "linked%2Fa"]
    (tmp_path / "web" / "dead.tar").symlink_to("nowhere")
    for given in ("web", "web/*.tar", "web/dead.tar", "web/{b,dead}.tar"):
        with pytest.raises(InputError, match=r"web/dead\.tar is a link to nowhere, and nothing"):
            shards(tmp_path / given)
    (tmp_path / "web" / "dead.tar").unlink()
    (tmp_path / "web" / "circle.tgz").symlink_to("circle.tgz")
    with pytest.raises(InputError, match=r"circle\.tgz cannot be read: Too many levels"):
        shards(tmp_path / "web")


def test_a_link_is_known_by_what_it_leads_to(tmp_path: Path) -> None:
    make(tmp_path, "disk/a.tar")
    (tmp_path / "a.tar").symlink_to("disk/a.tar")
    os.utime(tmp_path / "disk" / "a.tar", (7, 7))
    (found,) = list_inputs([str(tmp_path / "a.tar")])
    assert found == InputShard(str(tmp_path / "a.tar"), "a", 1, None, 7.0)


def test_pipes_and_sockets_are_named(tmp_path: Path) -> None:
    make(tmp_path, "web/a.tar")
    os.mkfifo(tmp_path / "web" / "p.TGZ")
    with pytest.raises(UsageError, match=r"p\.TGZ is a named pipe"):
        shards(tmp_path / "web")
    (tmp_path / "web" / "p.TGZ").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "web" / "s.tar"))
        with pytest.raises(UsageError, match=r"s\.tar is a socket"):
            shards(f"{tmp_path}/web/*")


@pytest.mark.parametrize("pattern", ["", "/*.tar", "/**/*.tar", "/{*,x}.tar"])
def test_hidden_names_are_skipped_everywhere(tmp_path: Path, pattern: str) -> None:
    make(tmp_path, "a.tar", "x.tar", "._a.tar", ".b.tar", ".cache/c.tar", "__MACOSX/._a.tar")
    if "{" in pattern:
        (tmp_path / "x.tar").rename(tmp_path / "y.tar")
        pattern = "/{a*,y}.tar"
    assert shards(f"{tmp_path}{pattern}") == ["a", "y" if "{" in pattern else "x"]


def test_a_hidden_file_that_is_named_is_meant(tmp_path: Path) -> None:
    make(tmp_path, ".web/.a.tar")
    assert shards(tmp_path / ".web" / ".a.tar") == ["%2Ea"]


@pytest.mark.parametrize("name", ["shard-0001", "shard.part", "a.tar.zst", "a.bin"])
def test_a_file_by_itself_is_taken_whatever_its_ending(tmp_path: Path, name: str) -> None:
    make(tmp_path, name)
    (found,) = list_inputs([str(tmp_path / name)])
    assert found.url == str(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("web.zip", b"PK\x03\x04", "archive of another kind.*Unpack it, and give"),
        ("web.7Z", b"7z", "archive of another kind"),
        ("download", b"PK\x03\x04rest", "archive of another kind"),
        ("download.part", b"PAR1rest", "not_parquet"),
        ("urls.tsv", b"x", "is a table.*capfilt download"),
        ("urls.CSV.gz", b"x", "is a table"),
        ("cat.jpg", b"x", "is a picture.*give the folder"),
        ("cat.HEIC", b"x", "is a picture"),
        ("notes.txt", b"x", "is a text file.*capfilt download` makes tars"),
    ],
)
def test_other_kinds_are_named_with_what_to_do(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        shards(tmp_path / name)


def test_a_folder_named_like_a_table_is_walked(tmp_path: Path) -> None:
    make(tmp_path, "laion.parquet/a.tar", "web.zip/b.tar")
    assert shards(tmp_path / "laion.parquet") == ["a"]
    assert shards(f"{tmp_path}/web.zip/*.tar") == ["b"]


def test_what_is_packed_otherwise_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "a.tar", "b.tar.zst", "c.tar.bz2", "d.zip", "00000.parquet", "00000_stats.json")
    assert shards(tmp_path) == ["a"]
    names = ", ".join(f"{tmp_path}/{name}" for name in ("b.tar.zst", "c.tar.bz2", "d.zip"))
    assert f"left out, as they are packed otherwise: {names}; only" in caplog.text
    (tmp_path / "a.tar").unlink()
    (tmp_path / "00000.parquet").unlink()
    with pytest.raises(InputError, match=r"no .*1 \.zst.*1 \.zip; only .* unpack the others"):
        shards(tmp_path)


def test_urls_of_this_machine_and_slashes_at_the_end(tmp_path: Path) -> None:
    make(tmp_path, "web::1/a.tar", "b.tar")
    for given in (f"file://{tmp_path}/web::1", f"{tmp_path}/web::1/", f"{tmp_path}//web::1//"):
        assert shards(given) == ["a"]
    assert shards(f"file://{tmp_path}/*.tar") == shards(f"{tmp_path}/b.tar/") == ["b"]
    assert shards(f"{tmp_path}/web::1/*.tar/") == ["a"]


@pytest.mark.parametrize(
    "inputs",
    [("", "/web/a.tar"), ("/web", ""), ("/web", "/web"), ("/web/*.tar", "/{web/a,b}.tar")],
)
def test_inputs_that_overlap_are_told(tmp_path: Path, inputs: tuple[str, str]) -> None:
    make(tmp_path, "web/a.tar", "b.tar")
    with pytest.raises(InputError, match=r"named twice: 1, the first is .*web/a\.tar"):
        shards(*(f"{tmp_path}{name}" for name in inputs))


def test_a_pattern_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more than 1,000,000 names; use"):
        shards(f"{tmp_path}/{{0..1000000}}.tar")


@pytest.mark.parametrize("name", ["gone", "gone/*.tar", "gone/**/*.tar", "b.tar/c.tar", "x" * 300])
def test_what_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    make(tmp_path, "b.tar")
    with pytest.raises(InputError, match=name[:4]):
        shards(tmp_path / name)
