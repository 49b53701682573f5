"""The names of what is measured: in metrics.json, histories, tables and comparisons."""

RANKS = (1, 3, 5)
RECALL_RANKS = (10, 100)
MAX_RANK = max(RECALL_RANKS)
METRICS = (
    *(f"{name}@{k}" for name in ("P", "PSP", "nDCG", "PSnDCG") for k in RANKS),
    *(f"R@{k}" for k in RECALL_RANKS),
)
VALIDATED = ("P@1", "P@5", "PSP@5")
"""measured on the validation split while training; their mean chooses among trials"""
HISTORY = ("epoch", "step", "loss", "learning_rate", "seconds", *VALIDATED, "rewired")
"""columns of history.csv"""
