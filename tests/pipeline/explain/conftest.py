"""The run that the tests of this folder explain."""

from tests.support.explained_run import explained, explained_run  # noqa: F401 - fixtures
