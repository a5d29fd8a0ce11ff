"""Evaluate: how good is a checkpoint at what it is for? One file for each task.

What cannot be used is counted by its reason (`left_out`), and never ends an evaluation.
"""

from pipeline.evaluate.caption import evaluate_captioner, measure_captioner
from pipeline.evaluate.filter import evaluate_filter, measure_filter
from pipeline.evaluate.pairs import EvaluateConfig, LabelledPair, read_pairs
from pipeline.evaluate.retrieval import evaluate_retrieval, measure_retrieval, open_retriever

__all__ = [
    "EvaluateConfig",
    "LabelledPair",
    "evaluate_captioner",
    "evaluate_filter",
    "evaluate_retrieval",
    "measure_captioner",
    "measure_filter",
    "measure_retrieval",
    "open_retriever",
    "read_pairs",
]
