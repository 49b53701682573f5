"""The names of what is measured: in metrics.json, histories, tables and comparisons."""

RANKS = (1, 3, 5)
RECALL_RANKS = (10, 100)
MAX_RANK = max(RECALL_RANKS)
KINDS = ("P", "PSP", "nDCG", "PSnDCG", "R")
"""names of metrics without their rank"""
METRICS = (
    *(f"{kind}@{k}" for kind in KINDS if kind != "R" for k in RANKS),
    *(f"R@{k}" for k in RECALL_RANKS),
)
HEADLINE = ("P@1", "P@3", "P@5", "PSP@1", "PSP@5", "R@100")
"""of a table that has no room for all, and of model cards"""
VALIDATED = ("P@1", "P@5", "PSP@5")
"""measured on the validation split while training; their mean chooses among trials"""
HISTORY = ("epoch", "step", "loss", "learning_rate", "seconds", *VALIDATED, "rewired")
"""columns of history.csv"""


def is_propensity_scored(metric: str) -> bool:
    """Whether a metric, with or without its rank, weighs labels by their training documents."""
    return metric.startswith("PS")
