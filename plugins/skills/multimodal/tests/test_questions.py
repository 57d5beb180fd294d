"""Questions about images, answered as transformers' model does for one image and one question."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelport.contract import InvalidRequest, Media, ModelCard
from modelport.tasks.multimodal import VisualQuestionRequest
from modelport.testing.backend import card_of
from modelport.testing.skill import SkillSuite, assert_close
from modelport_backend_cpu.backend import CpuBackend
from modelport_skill_multimodal import Multimodal

Checkpoint = Callable[[str], Path]
Picture = Callable[..., Media]

ASKED = [
    ("is it good", (61, 47)),
    ("how many of the cats are on this one", (40, 70)),
    ("a dog", (61, 47)),
    ("is it bad", (90, 30)),
]


def test_answers(checkpoint: Checkpoint, picture: Picture, ask: Any, reference: Any) -> None:
    asked = [(question, picture(n, *size)) for n, (question, size) in enumerate(ASKED)]

    answers = ask(
        checkpoint("vilt"), [VisualQuestionRequest(image=image, question=question, top_k=3) for question, image in asked]
    )

    model = reference(checkpoint("vilt"))
    found = []
    for (question, image), answer in zip(asked, answers, strict=True):
        expected = model(**model.texts([question]), **model.image(image)).logits[0].sigmoid().numpy()
        order = np.argsort(-expected, kind="stable")[:3]
        assert [each.answer for each in answer.results] == [model.model.config.id2label[int(i)] for i in order]
        np.testing.assert_allclose([each.score for each in answer.results], expected[order], atol=1e-4)
        found.append(expected)
    assert max(np.abs(found[0] - other).max() for other in found[1:]) > 1e-3, "a constant model proves nothing"


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.tuples(st.integers(12, 90), st.integers(12, 90)), max_size=3).map(lambda more: [(61, 47), (40, 70), *more]),
    words=st.integers(1, 9),
)
def test_an_answer_does_not_depend_on_company(
    sizes: list[tuple[int, int]], words: int, checkpoint: Checkpoint, picture: Picture, ask_twice: Any
) -> None:
    asked = [
        VisualQuestionRequest(image=picture(n, *size), question="is it good " * (1 + n % words))
        for n, size in enumerate(sizes * 2)
    ]

    together, alone = ask_twice(checkpoint("vilt"), asked)

    assert not any(isinstance(answer, Exception) for answer in alone)
    assert_close(together, alone, 1e-4)


@pytest.mark.parametrize(
    ("fields", "param"), [({"question": " "}, "question"), ({"question": "is it", "top_k": 0}, "top_k")], ids=["empty", "none"]
)
def test_questions_that_cannot_be(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        VisualQuestionRequest(image=Media(data=b"x"), **fields)
    assert caught.value.param == param


class TestSuite(SkillSuite):
    """What the core relies on."""

    skill = Multimodal()
    backend = CpuBackend()

    @pytest.fixture(autouse=True)
    def _given(self, checkpoint: Checkpoint, picture: Picture) -> None:
        self.folder, self.picture = checkpoint("vilt"), picture

    def card(self, folder: Path) -> ModelCard:
        return card_of(self.folder)

    def requests(self) -> dict[str, list[Any]]:
        pictures = [(self.picture(n, *size), question) for n, (question, size) in enumerate(ASKED)]
        asked = [VisualQuestionRequest(image=image, question=question) for image, question in pictures]
        return {"visual-question-answering": asked}

    def bad_requests(self) -> list[tuple[str, Any, str]]:
        bad = [
            (VisualQuestionRequest(image=Media(data=b"no image"), question="is it"), "image"),
            (VisualQuestionRequest(image=self.picture(1), question="b" * 40), "question"),
        ]
        return [("visual-question-answering", request, param) for request, param in bad]
