"""The command line: `capfilt`. Heavy imports stand inside the commands, so that help is quick."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from flows.cli import (
    bootstrap,
    checkpoint,
    clean,
    export,
    inspect,
    judge,
    report,
    search,
    train,
    trial,
)
from flows.cli import maintenance as keep
from flows.cli import predict as use
from flows.cli import video as watch
from flows.cli.evaluate import answers as evaluate_answers
from flows.cli.evaluate import pairs as evaluate
from flows.cli.evaluate import video as evaluate_video
from flows.cli.faults import exit_code_of

# What libraries read when a command imports them, unless the user says otherwise: nothing calls
# home, and Prefect's own log stays out of ours.
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "40",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Threads that spin while they wait take the processor from those they wait for, wherever
    # something else runs too: a toy run on a busy machine took four times the processor time.
    "OMP_WAIT_POLICY": "PASSIVE",
}

_TERMINATED = 128 + signal.SIGTERM

app = typer.Typer(
    help="Clean image-text pairs with BLIP's CapFilt.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("clean")(clean.clean)
app.command("judge", epilog=judge.EXAMPLES)(judge.judge)
app.command("stats", epilog=inspect.STATS_EXAMPLES)(inspect.stats)
app.command("explain")(inspect.explain)
app.command("verify")(keep.verify)
app.command("gc")(keep.gc)
app.command("report")(report.report)
app.command("pretrain", epilog=train.PRETRAIN_EXAMPLES)(train.pretrain)
app.command("finetune", epilog=train.FINETUNE_EXAMPLES)(train.finetune)
app.command("bootstrap", epilog=bootstrap.EXAMPLES)(bootstrap.bootstrap)
app.command("trial", epilog=trial.EXAMPLES)(trial.trial)
app.command("caption", epilog=use.CAPTION_EXAMPLES)(use.caption)
app.command("match", epilog=use.MATCH_EXAMPLES)(use.match)
app.command("ask", epilog=use.ASK_EXAMPLES)(use.ask)
app.command("reason", epilog=use.REASON_EXAMPLES)(use.reason)
app.command("attend", epilog=use.ATTEND_EXAMPLES)(use.attend)
app.command("export", epilog=export.EXAMPLES)(export.export)
app.command("index", epilog=search.INDEX_EXAMPLES)(search.index)
app.command("search", epilog=search.SEARCH_EXAMPLES)(search.search)
evaluate.app.command("vqa", epilog=evaluate_answers.VQA_EXAMPLES)(evaluate_answers.vqa)
evaluate.app.command("nlvr", epilog=evaluate_answers.NLVR_EXAMPLES)(evaluate_answers.nlvr)
evaluate.app.command("dialogue", epilog=evaluate_answers.DIALOGUE_EXAMPLES)(
    evaluate_answers.dialogue
)
app.command("watch", epilog=watch.EXAMPLES)(watch.watch)
evaluate.app.command("video", epilog=evaluate_video.EXAMPLES)(evaluate_video.evaluate_video)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(checkpoint.app, name="checkpoint")


def main() -> None:
    """Run the command line; expected faults end in one message and the exit code that they have."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(standalone_mode=False)  # of typer.Exit; None where a command just returns
    except SystemExit as told:  # by SIGTERM; all that was under way is released by now
        if told.code == _TERMINATED:
            _leave()
        raise
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except Exception as error:
        code = exit_code_of(error)
    sys.exit(code)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(_TERMINATED)


def _leave() -> NoReturn:
    """End at once: a thread that is in native code while the interpreter ends aborts it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_TERMINATED)
