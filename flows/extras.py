"""Which extra of capfilt brings a package that may be missing."""

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NamedTuple


class Extra(NamedTuple):
    """A package as people know it, and the extra that installs it."""

    package: str
    name: str


EXTRAS = {
    "av": Extra("PyAV", "video"),
    "faiss": Extra("FAISS", "search"),
    "matplotlib": Extra("Matplotlib", "report"),
    "prefect": Extra("Prefect", "prefect"),
    "pycocoevalcap": Extra("pycocoevalcap", "evaluate"),
    "ray": Extra("Ray", "ray"),
    "s3fs": Extra("s3fs", "s3"),
    "sklearn": Extra("scikit-learn", "evaluate"),
    "tensorboardX": Extra("tensorboardX", "train"),
}


def is_installed(package: str) -> bool:
    """Check whether a package can be imported, without importing it."""
    try:
        spec = find_spec(package)
    except ModuleNotFoundError:
        return False
    return spec is not None and spec.origin is not None  # a mere folder of that name has none


def versions_of(*names: str) -> dict[str, str]:
    """Return the version of each distribution that is installed; some are optional."""
    versions = {}
    for name in names:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def missing_extra(error: Exception) -> Extra | None:
    """Return what an import failed for want of; None where it is no package of an extra.

    fsspec, which imports file systems by itself, raises an ImportError of its own from the one
    that names the package.
    """
    for cause in (error, error.__cause__):
        if isinstance(cause, ModuleNotFoundError) and cause.name in EXTRAS:
            return EXTRAS[cause.name]
    return None
