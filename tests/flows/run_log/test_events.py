"""Events of a run: heard by whoever listens, and by no terminal."""

import logging
import subprocess
import sys

from flows.run_log.events import fields_of, heard_by, tell, tell_ready

PROGRAM = """
import logging
from flows.run_log.events import heard_by, tell
log = logging.getLogger("flows.engines.pool")
log.warning("before")
with heard_by(logging.NullHandler()):
    tell("begun", "a run begins")
    tell("shard_failed", "a shard fails", logging.WARNING)
    log.warning("within")
    log.info("quiet")
    with heard_by(logging.NullHandler()):
        log.warning("deeper")
tell("ended", "nobody listens", logging.ERROR)
log.warning("after")
"""


class Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def test_an_event_is_a_line_for_people_and_fields_for_machines() -> None:
    listener = Listener()
    with heard_by(listener):
        tell("shard_done", "shard a%sb is done", shard="a%sb", kept=0, why=None, worker="")
        tell_ready("w1", "here", "cpu")
        tell_ready("w2", "there", "a GPU", warm_up_s=61.23)
    tell("ended", "nobody listens")
    done, ready, warmed = listener.records
    assert (done.levelname, done.name, done.getMessage()) == (
        "INFO",
        "capfilt.run",
        "shard a%sb is done",
    )
    assert vars(done)["fields"] == {"event": "shard_done", "shard": "a%sb", "kept": 0}
    assert vars(ready)["fields"] == {
        "event": "worker_ready",
        "worker": "w1",
        "host": "here",
        "device": "cpu",
    }
    assert warmed.getMessage() == "a worker on there (a GPU) is ready, warmed up in 61 s"
    assert vars(warmed)["fields"]["warm_up_s"] == 61.2


def test_warnings_of_our_packages_are_heard_and_of_no_others() -> None:
    listener = Listener()
    with heard_by(listener):
        for name in ("shards.run.commit", "models.devices", "pipeline.clean", "flows", "urllib3"):
            logging.getLogger(name).warning("from %s", name)
        logging.getLogger("flows.engines").info("quiet")
        extra = fields_of("worker_lost", worker="w1")
        logging.getLogger("flows.engines").warning("lost", extra=extra)
    assert [record.getMessage() for record in listener.records] == [
        *("from shards.run.commit", "from models.devices", "from pipeline.clean", "from flows"),
        "lost",
    ]
    assert vars(listener.records[-1])["fields"] == {"event": "worker_lost", "worker": "w1"}


def test_the_terminal_has_each_warning_once_and_no_event() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.stderr.split() == ["before", "within", "deeper", "after"]
    configured = "import logging; logging.basicConfig(format='- %(message)s')\n" + PROGRAM
    done = subprocess.run([sys.executable, "-c", configured], capture_output=True, text=True)
    assert done.stderr.splitlines() == ["- before", "- within", "- deeper", "- after"]
