"""How well a model searches: protocols, tie-averaged metrics, controls, baselines, reports."""

from __future__ import annotations

from spherequant.evaluation.baselines import rank_baselines
from spherequant.evaluation.bootstrap import Comparison, paired_bootstrap
from spherequant.evaluation.figures import Figures, QueryFigures
from spherequant.evaluation.metrics import (
    average_precision,
    precision_at,
    precision_recall_curve,
)
from spherequant.evaluation.page import render_results
from spherequant.evaluation.protocol import evaluate
from spherequant.evaluation.rankings import (
    CodeRanker,
    FloatRanker,
    Ranked,
    Relevance,
    rank_queries,
)
from spherequant.evaluation.report import Report

__all__ = [
    "CodeRanker",
    "Comparison",
    "Figures",
    "FloatRanker",
    "QueryFigures",
    "Ranked",
    "Relevance",
    "Report",
    "average_precision",
    "evaluate",
    "paired_bootstrap",
    "precision_at",
    "precision_recall_curve",
    "rank_baselines",
    "rank_queries",
    "render_results",
]
