"""The command line: `capfilt`. Heavy imports stand inside the commands, so that help is quick."""

import os
import signal
from types import FrameType

import typer

from flows.cli import (
    checkpoint,
    clean,
    deploy,
    inspect,
    maintenance,
    plan,
    publish,
    rounds,
    search,
    train,
)
from flows.cli.evaluate import answers as evaluate_answers
from flows.cli.evaluate import pairs as evaluate
from flows.cli.evaluate import video as evaluate_video
from flows.cli.faults import exit_code_of, say
from flows.cli.predict import image, video
from flows.engines.ending import leave

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
}

_INTERRUPTED, _TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM

app = typer.Typer(
    help="Clean image-text pairs with BLIP's CapFilt.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("try", epilog=plan.TRY_EXAMPLES)(plan.try_)
app.command("plan", epilog=plan.PLAN_EXAMPLES)(plan.plan)
app.command("clean")(clean.clean)
app.command("judge", epilog=clean.JUDGE_EXAMPLES)(clean.judge)
app.command("stats", epilog=inspect.STATS_EXAMPLES)(inspect.stats)
app.command("explain")(inspect.explain)
app.command("verify")(maintenance.verify)
app.command("gc")(maintenance.gc)
app.command("report")(publish.report)
app.command("pretrain", epilog=train.PRETRAIN_EXAMPLES)(train.pretrain)
app.command("finetune", epilog=train.FINETUNE_EXAMPLES)(train.finetune)
app.command("bootstrap", epilog=rounds.BOOTSTRAP_EXAMPLES)(rounds.bootstrap)
app.command("approve", epilog=rounds.APPROVE_EXAMPLES)(rounds.approve)
app.command("trial", epilog=rounds.TRIAL_EXAMPLES)(rounds.trial)
app.command("deploy", epilog=deploy.EXAMPLES)(deploy.deploy)
app.command("caption", epilog=image.CAPTION_EXAMPLES)(image.caption)
app.command("match", epilog=image.MATCH_EXAMPLES)(image.match)
app.command("ask", epilog=image.ASK_EXAMPLES)(image.ask)
app.command("reason", epilog=image.REASON_EXAMPLES)(image.reason)
app.command("attend", epilog=image.ATTEND_EXAMPLES)(image.attend)
app.command("export", epilog=publish.EXPORT_EXAMPLES)(publish.export)
app.command("index", epilog=search.INDEX_EXAMPLES)(search.index)
app.command("search", epilog=search.SEARCH_EXAMPLES)(search.search)
evaluate.app.command("vqa", epilog=evaluate_answers.VQA_EXAMPLES)(evaluate_answers.vqa)
evaluate.app.command("nlvr", epilog=evaluate_answers.NLVR_EXAMPLES)(evaluate_answers.nlvr)
evaluate.app.command("dialogue", epilog=evaluate_answers.DIALOGUE_EXAMPLES)(
    evaluate_answers.dialogue
)
app.command("watch", epilog=video.EXAMPLES)(video.watch)
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
            say("stopped by SIGTERM", _TERMINATED)
            leave(_TERMINATED, at_once=True)
        raise
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except Exception as error:
        code = exit_code_of(error)
    if code == _INTERRUPTED:  # what Typer makes of Ctrl-C, too
        say("stopped by Ctrl-C", _INTERRUPTED)
    leave(code or 0)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(_TERMINATED)
