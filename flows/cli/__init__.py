"""The command line: `capfilt`. Heavy imports stand inside the commands, so that help is quick."""

from flows.engines import early

# isort: split
import os
import signal
from importlib.metadata import version
from types import FrameType
from typing import Annotated

import typer

from flows.cli import (
    checkpoint,
    clean,
    download,
    inspect,
    maintenance,
    plan,
    publish,
)
from flows.cli.evaluate import answers as evaluate_answers
from flows.cli.evaluate import pairs as evaluate
from flows.cli.evaluate import video as evaluate_video
from flows.cli.faults import exit_code_of, say
from flows.cli.judging import dedup, judge
from flows.cli.predict import image, search, video
from flows.cli.training import deploy, rounds, train
from flows.engines.ending import leave, settle

early.over()

# What libraries read when a command imports them, unless the user says otherwise: nothing calls
# home.
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Threads that spin while they wait take the processor from those they wait for, wherever
    # something else runs too: a toy run on a busy machine took four times the processor time.
    "OMP_WAIT_POLICY": "PASSIVE",
    "THP_MEM_ALLOC_ENABLE": "1",  # torch asks for large pages, where the system gives them
}

_INTERRUPTED, _TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM

# groups of commands in the help
CLEAN, LOOK, TRAIN, USE = "Clean pairs", "Look at what came of it", "Train", "Use models and sets"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"capfilt {version('capfilt')}")
        raise typer.Exit


@app.callback()
def _capfilt(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="print it, and end"),
    ] = False,
) -> None:
    """Clean image-text pairs with BLIP's CapFilt."""


app.command("try", rich_help_panel=CLEAN, epilog=plan.TRY_EXAMPLES)(plan.try_)
app.command("plan", rich_help_panel=CLEAN, epilog=plan.PLAN_EXAMPLES)(plan.plan)
app.command("download", rich_help_panel=CLEAN, epilog=download.EXAMPLES)(download.download)
app.command("clean", rich_help_panel=CLEAN, epilog=clean.CLEAN_EXAMPLES)(clean.clean)
app.command("judge", rich_help_panel=CLEAN, epilog=judge.JUDGE_EXAMPLES)(judge.judge)
app.command("score", rich_help_panel=CLEAN, epilog=judge.SCORE_EXAMPLES)(judge.score)
app.command("dedup", rich_help_panel=CLEAN, epilog=dedup.DEDUP_EXAMPLES)(dedup.dedup)
app.command("exclude", rich_help_panel=CLEAN, epilog=dedup.EXCLUDE_EXAMPLES)(dedup.exclude)
app.command("stats", rich_help_panel=LOOK, epilog=inspect.STATS_EXAMPLES)(inspect.stats)
app.command("explain", rich_help_panel=LOOK)(inspect.explain)
app.command("verify", rich_help_panel=LOOK)(maintenance.verify)
app.command("gc", rich_help_panel=LOOK)(maintenance.gc)
app.command("report", rich_help_panel=LOOK)(publish.report)
app.command("pretrain", rich_help_panel=TRAIN, epilog=train.PRETRAIN_EXAMPLES)(train.pretrain)
app.command("finetune", rich_help_panel=TRAIN, epilog=train.FINETUNE_EXAMPLES)(train.finetune)
app.command("bootstrap", rich_help_panel=TRAIN, epilog=rounds.BOOTSTRAP_EXAMPLES)(rounds.bootstrap)
app.command("approve", rich_help_panel=TRAIN, epilog=rounds.APPROVE_EXAMPLES)(rounds.approve)
app.command("trial", rich_help_panel=TRAIN, epilog=rounds.TRIAL_EXAMPLES)(rounds.trial)
app.command("deploy", rich_help_panel=TRAIN, epilog=deploy.EXAMPLES)(deploy.deploy)
app.command("caption", rich_help_panel=USE, epilog=image.CAPTION_EXAMPLES)(image.caption)
app.command("match", rich_help_panel=USE, epilog=image.MATCH_EXAMPLES)(image.match)
app.command("ask", rich_help_panel=USE, epilog=image.ASK_EXAMPLES)(image.ask)
app.command("reason", rich_help_panel=USE, epilog=image.REASON_EXAMPLES)(image.reason)
app.command("attend", rich_help_panel=USE, epilog=image.ATTEND_EXAMPLES)(image.attend)
app.command("export", rich_help_panel=USE, epilog=publish.EXPORT_EXAMPLES)(publish.export)
app.command("index", rich_help_panel=USE, epilog=search.INDEX_EXAMPLES)(search.index)
app.command("search", rich_help_panel=USE, epilog=search.SEARCH_EXAMPLES)(search.search)
evaluate.app.command("vqa", epilog=evaluate_answers.VQA_EXAMPLES)(evaluate_answers.vqa)
evaluate.app.command("nlvr", epilog=evaluate_answers.NLVR_EXAMPLES)(evaluate_answers.nlvr)
evaluate.app.command("dialogue", epilog=evaluate_answers.DIALOGUE_EXAMPLES)(
    evaluate_answers.dialogue
)
app.command("watch", rich_help_panel=USE, epilog=video.EXAMPLES)(video.watch)
evaluate.app.command("video", epilog=evaluate_video.EXAMPLES)(evaluate_video.evaluate_video)
app.add_typer(evaluate.app, name="evaluate", rich_help_panel=LOOK)
app.add_typer(checkpoint.app, name="checkpoint", rich_help_panel=USE)


def main() -> None:
    """Run the command line; expected faults end in one message and the exit code that they have."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(standalone_mode=False)  # of typer.Exit; None where a command just returns
    except SystemExit as told:  # by SIGTERM; all that was under way is released by now
        if told.code == _TERMINATED:
            settle(_TERMINATED)
            say("stopped by SIGTERM", _TERMINATED)
            leave(_TERMINATED, at_once=True)
        raise
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except Exception as error:
        code = exit_code_of(error)
    settle(code or 0)
    if code == _INTERRUPTED:  # what Typer makes of Ctrl-C, too
        say("stopped by Ctrl-C", _INTERRUPTED)
    leave(code or 0)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(_TERMINATED)
