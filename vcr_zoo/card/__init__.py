"""A model card: recipe, manifest and results in, Markdown with the Hub's metadata out."""

from .evidence import Evidence, evidence
from .files import card_files, check, regenerate
from .markdown import card, table

__all__ = ["Evidence", "card", "card_files", "check", "evidence", "regenerate", "table"]
