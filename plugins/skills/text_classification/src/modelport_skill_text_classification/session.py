"""Texts and pairs to ids, and logits to labels and rankings."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelport.contract import Array, ConfigurationError, InputTooLong, InvalidRequest, Item, Session, SessionContext, to_numpy
from modelport.tasks.text import (
    ClassificationRequest,
    ClassificationResult,
    LabelScore,
    RankedDocument,
    RankingRequest,
    RankingResult,
)
from modelport.tasks.zero_shot import ZeroShotRequest, ZeroShotResult
from modelport_hf.folder import label_names, position_limit
from modelport_hf.padding import length_group
from modelport_hf.tokenizer import load_tokenizer
from modelport_skill_text_classification.entailment import entailment_label, label_scores
from modelport_skill_text_classification.scores import Activation, activation_of, applied

__all__ = ["ClassificationSession"]


class ClassificationSession(Session):
    """One text or pair is one item, for all tasks."""

    def __init__(self, context: SessionContext) -> None:
        super().__init__(context)
        card = context.card
        self.labels = label_names(card.config)
        self.tokenizer = load_tokenizer(context.folder, trust_remote_code=card.trust_remote_code)
        pad = self.tokenizer.id_of("pad_token")
        self.pads = {"input_ids": pad if pad is not None else (card.config.get("pad_token_id") or 0)}
        limits = (
            card.limit,
            position_limit(card.config),
            self.tokenizer.model_max_length,
            context.limits.max_length if context.limits else None,
        )
        self.limit = min((limit for limit in limits if limit is not None), default=None)
        self.activation = self._activation()
        assert context.program is not None
        self._typed = any(spec.name == "token_type_ids" for spec in context.program.entries["main"].inputs)

    def preprocess(self, request: ClassificationRequest | RankingRequest | ZeroShotRequest) -> list[Item]:
        if isinstance(request, RankingRequest):
            return self._pairs(request)
        if isinstance(request, ZeroShotRequest):
            return self._hypotheses(request)
        if request.top_k is not None and request.top_k < 1:
            raise InvalidRequest(f"top_k is {request.top_k}; it must be at least 1.", param="top_k")
        if isinstance(request.inputs, str):
            return [self._item(request.inputs, None, request.truncate, "inputs")]
        if not request.inputs:
            raise InvalidRequest("inputs is empty; give at least one text.", param="inputs")
        items = []
        for index, value in enumerate(request.inputs):
            text, pair = (value, None) if isinstance(value, str) else value
            items.append(self._item(text, pair, request.truncate, f"inputs.{index}"))
        return items

    def postprocess(
        self, request: ClassificationRequest | RankingRequest | ZeroShotRequest, outputs: list[dict[str, Array]]
    ) -> ClassificationResult | RankingResult | ZeroShotResult:
        logits = np.stack([to_numpy(output["logits"]) for output in outputs])
        if isinstance(request, RankingRequest):
            return self._ranking(request, logits[:, 0])
        if isinstance(request, ZeroShotRequest):
            return self._entailed(request, logits)
        scores = applied(request.function_to_apply or self.activation, logits)
        return ClassificationResult(results=[self._labelled(row, request.top_k) for row in scores])

    def _hypotheses(self, request: ZeroShotRequest) -> list[Item]:
        """Every text with every label."""
        if not request.inputs:
            raise InvalidRequest("inputs is empty; give at least one text.", param="inputs")
        hypotheses = [request.hypothesis_template.replace("{}", label) for label in request.candidate_labels]
        if isinstance(request.inputs, str):
            return [self._item(request.inputs, hypothesis, False, "inputs") for hypothesis in hypotheses]
        return [
            self._item(text, hypothesis, False, f"inputs.{index}")
            for index, text in enumerate(request.inputs)
            for hypothesis in hypotheses
        ]

    def _entailed(self, request: ZeroShotRequest, logits: np.ndarray) -> ZeroShotResult:
        entailment = entailment_label(self.labels)
        assert entailment is not None, "the skill claims the task for models that have the label"
        labels = request.candidate_labels
        results = []
        for rows in logits.reshape(-1, len(labels), logits.shape[-1]):
            scores = label_scores(rows, entailment, multi_label=request.multi_label)
            results.append([LabelScore(labels[i], float(scores[i])) for i in np.argsort(-scores, kind="stable")])
        return ZeroShotResult(results=results)

    def _pairs(self, request: RankingRequest) -> list[Item]:
        if not request.query:
            raise InvalidRequest("The query is empty; give a text of at least one character.", param="query")
        if not request.documents:
            raise InvalidRequest("documents is empty; give at least one text.", param="documents")
        for name in ("top_n", "max_tokens_per_document"):
            value = getattr(request, name)
            if value is not None and value < 1:
                raise InvalidRequest(f"{name} is {value}; it must be at least 1.", param=name)
        cut = request.max_tokens_per_document
        return [
            self._item(request.query, document, request.truncate, f"documents.{index}", cut)
            for index, document in enumerate(request.documents)
        ]

    def _ranking(self, request: RankingRequest, logits: np.ndarray) -> RankingResult:
        scores = logits.astype(np.float64) if request.raw_scores else applied("sigmoid", logits)
        order = np.argsort(-logits.astype(np.float64), kind="stable")[: request.top_n]
        return RankingResult(results=[RankedDocument(index=int(i), score=float(scores[i])) for i in order])

    def _labelled(self, scores: np.ndarray, top_k: int | None) -> list[LabelScore]:
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [LabelScore(self.labels[i] if i < len(self.labels) else f"LABEL_{i}", float(scores[i])) for i in order]

    def _item(self, text: str, pair: str | None, is_cut: bool, param: str, pair_tokens: int | None = None) -> Item:
        if not text:
            raise InvalidRequest("The input is empty; give a text of at least one character.", param=param)
        encoded = self.tokenizer.encode(text, pair, max_pair_tokens=pair_tokens)
        if self.limit is not None and len(encoded) > self.limit:
            if not is_cut:
                what = "The input has" if pair is None else "The pair has"
                raise InputTooLong(
                    f"{what} {len(encoded)} tokens, and this model takes at most {self.limit}. Shorten it, or ask for"
                    " truncation.",
                    param=param,
                )
            encoded = self.tokenizer.encode(text, pair, max_pair_tokens=pair_tokens, max_tokens=self.limit)
        if not encoded.ids:
            raise InvalidRequest("The input has no tokens; give a text that is more than white space.", param=param)
        ids = np.array(encoded.ids, dtype=np.int64)
        arrays: dict[str, Any] = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        if self._typed:
            arrays["token_type_ids"] = np.array(encoded.type_ids, dtype=np.int64)
        return Item(arrays, cost=len(ids), group=length_group(self.context.card, len(ids)))

    def _activation(self) -> Activation:
        card = self.context.card
        chosen = self.context.options.get("activation", card.options.get("activation"))
        if chosen is None:
            return activation_of(card.config, len(self.labels))
        if chosen not in ("softmax", "sigmoid", "none"):
            raise ConfigurationError(
                f"models.{card.name}.options.activation is {chosen!r}; it can be softmax, sigmoid or none.",
                param=f"models.{card.name}.options.activation",
            )
        return chosen  # type: ignore[no-any-return]
