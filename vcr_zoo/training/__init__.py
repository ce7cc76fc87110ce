"""Training: timm's task and options, regularized, with exact resume."""

from .options import parse
from .run import Run, main, train

__all__ = ["Run", "main", "parse", "train"]
