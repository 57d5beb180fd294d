"""The built-in tasks, one file per modality."""

from modelport.tasks.text import FEATURE_EXTRACTION, TEXT_CLASSIFICATION, TEXT_GENERATION, TEXT_RANKING

__all__ = ["FEATURE_EXTRACTION", "TEXT_CLASSIFICATION", "TEXT_GENERATION", "TEXT_RANKING"]
