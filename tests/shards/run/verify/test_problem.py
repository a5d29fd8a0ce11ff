"""What is wrong is told in one line: where, what, and what should be there instead."""

from shards.run.verify.problem import Problem


def test_a_problem_is_one_line() -> None:
    name = "commits/00000.json"
    assert str(Problem(name, "the file is gone")) == f"{name}: the file is gone"
    assert str(Problem(name, "rows", "3", "2")) == f"{name}: rows: expected 3, found 2"
    assert str(Problem(name, "no such snapshot", actual="abc")) == (
        f"{name}: no such snapshot, found abc"
    )
