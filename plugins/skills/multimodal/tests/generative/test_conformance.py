from __future__ import annotations

import pytest

from modelport.contract import Media
from modelport.tasks.multimodal import ImageToTextRequest, VisualQuestionRequest
from modelport.tasks.text import GenerationRequest, Message
from modelport.tasks.text2text import GenerateParameters
from modelport.testing.skill import SkillSuite
from modelport_backend_cpu.backend import CpuBackend
from modelport_skill_multimodal import Multimodal

from .conftest import draw, full_card

SHORT = GenerateParameters(max_new_tokens=4)


class TestConversations(SkillSuite):
    skill = Multimodal()
    backend = CpuBackend()

    @pytest.fixture(autouse=True)
    def _made(self, checkpoint):
        self.folder = checkpoint("llava").folder

    def card(self, folder):
        return full_card(self.folder)

    def requests(self):
        def message(*parts):
            return GenerationRequest(messages=[Message(role="user", content=list(parts))], max_new_tokens=4)

        text = {"type": "text", "text": "what"}
        talk = [message({"type": "image", "data": draw(seed)}, text) for seed in (0, 1)]
        return {
            "image-text-to-text": talk,
            "text-generation": talk,
            "image-to-text": [ImageToTextRequest(inputs=Media(data=draw(1, 30, 20)), generate_parameters=SHORT)],
            "visual-question-answering": [VisualQuestionRequest(image=Media(data=draw(1)), question="what")],
        }

    def bad_requests(self):
        return [
            ("image-to-text", ImageToTextRequest(inputs=Media()), "inputs"),
            ("visual-question-answering", VisualQuestionRequest(image=Media(data=b"?"), question="what"), "image"),
            ("text-generation", GenerationRequest(messages=[]), "messages"),
        ]
