"""The collector rests as long as anyone needs it to, and comes back as it was."""

import gc
import threading

import pytest

from shards.run.many import without_collection


def test_it_rests_until_the_last_block_ends() -> None:
    assert gc.isenabled()
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with without_collection():
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=other)
    with without_collection():
        thread.start()
        assert inside.wait(30)
        assert not gc.isenabled()
    assert not gc.isenabled(), "the other block goes on"
    leave.set()
    thread.join(30)
    assert gc.isenabled()


def test_it_comes_back_after_an_error() -> None:
    with pytest.raises(ValueError, match="broken"), without_collection():
        raise ValueError("broken")
    assert gc.isenabled()


def test_who_had_it_off_keeps_it_off() -> None:
    gc.disable()
    try:
        with without_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
