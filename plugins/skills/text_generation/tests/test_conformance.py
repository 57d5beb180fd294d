from __future__ import annotations

import pytest

from modelport.contract import UnsupportedParameter
from modelport.tasks.text import GenerationRequest
from modelport.testing.backend import card_of
from modelport.testing.checkpoints import write_byte_tokenizer
from modelport.testing.fake_network import write_tiny_network
from modelport.testing.fakes import BucketBackend, NumpyBackend
from modelport.testing.skill import SkillSuite
from modelport_skill_text_generation import TextGeneration


class TestTextGeneration(SkillSuite):
    skill = TextGeneration()
    backend = NumpyBackend()

    def card(self, folder):
        pieces = ["</s>", *("?" for _ in range(299))]
        write_tiny_network(folder, pieces=pieces, architectures=["LlamaForCausalLM"], max_position_embeddings=64)
        write_byte_tokenizer(folder)
        return card_of(folder)

    def requests(self):
        plain = GenerationRequest(prompt="Once", max_new_tokens=8)
        several = GenerationRequest(prompt=[40, 41], max_new_tokens=8, n=3, do_sample=True, seed=1, stop=["e"])
        return {"text-generation": [plain, several]}

    def bad_requests(self):
        return [("text-generation", GenerationRequest(prompt=[40, 10**6]), "prompt.1")]

    def test_a_prompt_that_nothing_follows_is_counted(self, tmp_path):
        async def usage(served):
            for stream in (False, True):
                await served._ask("text-generation", GenerationRequest(prompt="Once", max_new_tokens=0, n=2), stream)
                assert (served.usage.prompt_tokens, served.usage.completion_tokens) == (4, 0)

        self._serve(tmp_path, usage)


class TestWithoutParameters(TestTextGeneration):
    backend = BucketBackend()

    @pytest.mark.parametrize("name", ["logprobs", "prompt_logprobs"])
    def test_a_refusal_names_the_parameter_and_the_backend(self, tmp_path, name):
        async def ask(served):
            with pytest.raises(UnsupportedParameter, match=f"{name} is not supported by the backend 'fake-bucket'") as refused:
                await served.ask("text-generation", GenerationRequest(prompt="x", **{name: 1}))
            assert refused.value.param == name

        self._serve(tmp_path, ask)
