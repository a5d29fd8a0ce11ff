"""The stages of a round, by name; this file loads no library."""

from typing import Literal

Stage = Literal["pretrain", "captioner", "filter", "clean", "evaluate"]
STAGES: tuple[Stage, ...] = ("pretrain", "captioner", "filter", "clean", "evaluate")
Ending = Literal["rounds", "gate", "approval"]
"""Why no more is done: all rounds are, the gate stopped them, or a person is waited for."""
Next = Literal["next", "ask", "over"]
"""What comes after a round: the next one, a question to a person, or nothing."""
