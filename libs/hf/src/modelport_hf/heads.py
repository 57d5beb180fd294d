"""Which head a checkpoint has, from the names of its architectures. Pure; used by skills' claims."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["head_of", "is_text"]

_SUFFIXES = (
    ("ForCausalLM", "causal-lm"),
    ("LMHeadModel", "causal-lm"),
    ("ModelWithLMHead", "causal-lm"),
    ("BertGenerationDecoder", "causal-lm"),
    ("ForSequenceClassification", "sequence-classification"),
    ("ForTokenClassification", "token-classification"),
    ("ViltForQuestionAnswering", "visual-question-answering"),
    ("LayoutLMForQuestionAnswering", "document-question-answering"),
    ("LayoutLMv2ForQuestionAnswering", "document-question-answering"),
    ("LayoutLMv3ForQuestionAnswering", "document-question-answering"),
    ("ForQuestionAnswering", "question-answering"),
    ("ForQuestionAnsweringSimple", "question-answering"),
    ("ForMultipleChoice", "multiple-choice"),
    ("ForMaskedLM", "masked-lm"),
    ("ForPreTraining", "pretraining"),
    ("ForConditionalGeneration", "conditional-generation"),
    ("ForVisionText2Text", "conditional-generation"),
    ("VisionEncoderDecoderModel", "image-text-to-text"),
    ("ForImageClassification", "image-classification"),
    ("ForImageClassificationWithTeacher", "image-classification"),
    ("ForImageClassificationLearned", "image-classification"),
    ("ForImageClassificationFourier", "image-classification"),
    ("ForImageClassificationConvProcessing", "image-classification"),
    ("ForVideoClassification", "video-classification"),
    ("OwlViTForObjectDetection", "zero-shot-object-detection"),
    ("Owlv2ForObjectDetection", "zero-shot-object-detection"),
    ("GroundingDinoForObjectDetection", "zero-shot-object-detection"),
    ("OmDetTurboForObjectDetection", "zero-shot-object-detection"),
    ("ForObjectDetection", "object-detection"),
    ("ForSemanticSegmentation", "semantic-segmentation"),
    ("ForInstanceSegmentation", "universal-segmentation"),
    ("ForUniversalSegmentation", "universal-segmentation"),
    ("DetrForSegmentation", "universal-segmentation"),
    ("ForDepthEstimation", "depth-estimation"),
    ("ForKeypointDetection", "keypoint-detection"),
    ("Blip2ForImageTextRetrieval", "zero-shot-image-classification"),
    ("ForTextToSpeech", "text-to-waveform"),
    ("WithHifiGan", "text-to-waveform"),
    ("FastSpeech2ConformerModel", "text-to-spectrogram"),
    ("VitsModel", "text-to-waveform"),
    ("BarkModel", "text-to-waveform"),
    ("MTModel", "conditional-generation"),
    ("EncoderDecoderModel", "conditional-generation"),
    ("ForTextToText", "conditional-generation"),
    ("ForCTC", "ctc"),
    ("ForSpeechToText", "speech-seq2seq"),
    ("SpeechEncoderDecoderModel", "speech-seq2seq"),
    ("ForAudioClassification", "audio-classification"),
    ("EncoderModel", "text-encoding"),
    ("Model", "feature-extraction"),
)
"""Ends of class names, the most specific first, and the auto-class head that each belongs to."""

_OTHER_SENSES = (
    "vision_config",
    "audio_config",
    "audio_encoder",
    "image_size",
    "num_mel_bins",
    "speech_config",
    "feat_extract_norm",
)
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")


def head_of(architectures: Iterable[str]) -> str | None:
    """The head in the field's task names (`causal-lm`, …) of the first architecture whose name says it; None if none does.

    >>> head_of(("BertForSequenceClassification",)), head_of(("GPT2LMHeadModel",)), head_of(("BertModel",))
    ('sequence-classification', 'causal-lm', 'feature-extraction')
    """
    for name in architectures:
        for suffix, head in _SUFFIXES:
            if name.endswith(suffix):
                return head
    return None


def is_text(config: Mapping[str, Any], files: Iterable[str]) -> bool:
    """Whether a checkpoint takes text and nothing else, as far as its config.json and its files tell."""
    return not any(key in config for key in _OTHER_SENSES) and not any(name in _PROCESSOR_FILES for name in files)
