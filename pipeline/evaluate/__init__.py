"""Evaluate: how good is a checkpoint at what it is for? One file for each task.

What cannot be used is counted by its reason (`left_out`), and never ends an evaluation.
"""

from pipeline.evaluate.caption import measure_captioner, open_captioner
from pipeline.evaluate.filter import measure_filter, open_filter
from pipeline.evaluate.pairs import EvaluateConfig, LabelledPair, read_pairs
from pipeline.evaluate.retrieval import measure_retrieval, open_retriever

__all__ = [
    "EvaluateConfig",
    "LabelledPair",
    "measure_captioner",
    "measure_filter",
    "measure_retrieval",
    "open_captioner",
    "open_filter",
    "open_retriever",
    "read_pairs",
]
