"""What tests of evaluation share."""

from tests.support.small_evaluation import (  # noqa: F401 - fixtures
    answering,
    folders,
    pairs,
    pairs_of_several,
    toy,
    world,
)
