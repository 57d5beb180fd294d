"""Models that see the padding of a batch, though a mask tells them not to. Imports nothing heavy."""

from __future__ import annotations

from modelport.contract.card import ModelCard

__all__ = ["length_group"]

_SEES_PADDING = {
    "canine": "pools characters by convolutions",
    "convbert": "convolves over tokens",
    "doge": "keeps as many keys as the row is long",
    "fnet": "mixes tokens by a Fourier transform without a mask",
    "funnel": "pools neighbouring tokens",
    "mobilebert": "puts the vectors of neighbours into each token's",
    "nystromformer": "estimates attention from means of segments",
    "t5gemma": "takes the last place of the decoder for the end of the text",
    "t5gemma2": "takes the last place of the decoder for the end of the text",
    "xlnet": "takes the last place of the row for the whole text",
    "yoso": "estimates attention by hashes",
}
"""Model types whose answer to a text depends on how far it is padded, and why; found by the sweep (`make sweep`)."""


def length_group(card: ModelCard, length: int) -> str:
    """The `group` of an item of `length` tokens: for models that see padding only texts of one length share a batch.

    >>> length_group(ModelCard(name="a", source="a", model_type="fnet"), 7)
    '7'
    """
    return str(length) if card.model_type in _SEES_PADDING else ""
