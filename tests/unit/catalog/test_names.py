"""The names that requests may use, and the families behind `hf_*`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelport.contract.errors import ConfigurationError, NotFound
from modelport.contract.skill import Skill
from modelport.core.catalog.families import Families
from modelport.core.catalog.mappings import heads_of
from modelport.core.catalog.names import Names
from modelport.core.catalog.verification import Verification
from modelport.core.config.settings import ModelSettings, Settings

MODELS = {"org/SmolLM": ModelSettings(source="a/b", aliases=["chat"]), "minilm": ModelSettings(source="a/c")}


class Generation(Skill):
    name = "generation"
    tasks = ()
    heads = {"causal-lm": ("text-generation",)}
    default_checkpoints = {"llama": "org/tiny-llama", "bert": "org/bert-lm"}


class Embedding(Skill):
    name = "embedding"
    tasks = ()
    heads = {"feature-extraction": ("feature-extraction",)}
    default_checkpoints = {"bert": "org/bert"}


SKILLS: dict[str, Skill] = {"embedding": Embedding(), "generation": Generation()}
FAMILIES = Families(
    {
        "bert": ("feature-extraction", "causal-lm"),
        "llama": ("feature-extraction", "causal-lm"),
        "xlm-roberta": ("feature-extraction",),
        "sam": ("mask-generation",),
    },
    "9.9",
)


def refusal(requested: str, settings: Settings | None = None, **more: Any) -> str:
    with pytest.raises(NotFound) as caught:
        Names(settings or Settings(models=MODELS)).resolve(requested, **more)
    assert caught.value.param == "model"
    return caught.value.message


def test_names_and_aliases_mean_their_model() -> None:
    names = Names(Settings(models=MODELS))

    assert [names.resolve(name) for name in ("org/SmolLM", "chat", "minilm")] == ["org/SmolLM", "org/SmolLM", "minilm"]
    assert names.models == ["org/SmolLM", "minilm"]
    assert names.aliases("org/SmolLM") == ("chat",)


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ("minlim", 'There is no model "minlim". Did you mean "minilm"?'),
        ("ORG/smollm", 'There is no model "ORG/smollm". Did you mean "org/SmolLM"?'),
        ("smollm", 'There is no model "smollm". Did you mean "org/SmolLM"?'),
        ("gpt-4o", 'There is no model "gpt-4o". Models here: org/SmolLM, minilm.'),
        ("hf_bert", 'There is no model "hf_bert". Requests may name families only where allow_families = true.'),
    ],
)
def test_unknown_name_is_told_the_nearest(requested: str, message: str) -> None:
    assert refusal(requested) == message


def test_nearest_name_is_one_that_the_caller_may_know() -> None:
    assert refusal("minlim", visible={"org/SmolLM"}) == 'There is no model "minlim". Models here: org/SmolLM.'
    assert refusal("minlim", visible={"chat"}) == 'There is no model "minlim". Models here: org/SmolLM.'
    assert refusal("minlim", visible=set()) == 'There is no model "minlim". No model is configured.'


def test_long_name_is_cut_in_the_answer() -> None:
    assert len(refusal("x" * 100_000)) < 200


def test_families_are_names_where_they_are_allowed() -> None:
    names = Names(Settings(models=MODELS, allow_families=True))

    assert names.resolve("hf_xlm-roberta") == "hf_xlm_roberta"
    names.families = FAMILIES
    assert names.resolve("hf_xlm.roberta") == "hf_xlm_roberta"
    with pytest.raises(NotFound, match=r'^"hf_brt" is no family of transformers 9\.9\. Did you mean hf_bert\?$'):
        names.resolve("hf_brt")


def test_family_says_who_serves_what_and_from_where() -> None:
    family = FAMILIES.family("hf_bert", SKILLS)

    assert family.tasks == {"feature-extraction": "embedding", "text-generation": "generation"}
    assert (family.skill, family.default_checkpoint) == ("embedding", "org/bert")
    assert FAMILIES.checkpoint("hf_llama", SKILLS) == "org/tiny-llama"


def test_plainest_head_decides_whose_checkpoint_a_family_means() -> None:
    assert FAMILIES.checkpoint("hf_bert", dict(reversed(SKILLS.items()))) == "org/bert"


def test_order_of_skills_decides_between_skills_of_one_head() -> None:
    class Other(Embedding):
        default_checkpoints = {"bert": "org/other-bert"}

    assert FAMILIES.checkpoint("hf_bert", {**SKILLS, "other": Other()}) == "org/bert"
    assert FAMILIES.checkpoint("hf_bert", {"other": Other(), **SKILLS}) == "org/other-bert"


def test_family_without_a_checkpoint_asks_for_one() -> None:
    with pytest.raises(ConfigurationError) as caught:
        FAMILIES.checkpoint("hf_xlm_roberta", SKILLS)

    assert caught.value.message == (
        "hf_xlm_roberta has no default checkpoint. Give one instead of the family: a Hub id or a folder of a xlm-roberta model."
    )


def test_family_that_no_skill_serves_says_so() -> None:
    with pytest.raises(
        ConfigurationError, match=r"No installed skill serves hf_sam \(heads mask-generation\)\. Installed skills: emb"
    ):
        FAMILIES.checkpoint("hf_sam", SKILLS)


def test_heads_follow_from_the_names_of_mappings() -> None:
    mappings = {
        "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES": ["bert"],
        "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": ["bert", "llama"],
        "MODEL_MAPPING_NAMES": ["bert"],
        "SOMETHING_ELSE": ["bert"],
    }

    assert heads_of(mappings) == {
        "bert": ["feature-extraction", "causal-lm", "sequence-classification"],
        "llama": ["causal-lm"],
    }


async def test_families_come_from_the_installed_transformers_and_are_kept(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    settings = Settings(cache_dir=str(tmp_path))
    assert Families.cached(settings) is None

    families = await Families.load(settings)

    assert "hf_bert" in families.names
    assert "causal-lm" in families.heads["llama"]
    kept = Families.cached(settings)
    assert kept is not None
    assert kept.heads == families.heads


def test_catalogue_child_imports_no_torch() -> None:
    pytest.importorskip("transformers")
    program = (
        "import sys, io, contextlib\n"
        "from modelport.core.catalog import mappings\n"
        "with contextlib.redirect_stdout(io.StringIO()): mappings.main()\n"
        "print([name for name in sys.modules if name.startswith('torch.')])"
    )

    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_findings_of_the_sweep_belong_to_families(tmp_path: Path) -> None:
    file = tmp_path / "verified.json"
    file.write_text(
        """{"transformers": "9.9", "tasks": {"ctc": "asr", "speech": "asr", "masked-lm": "fill-mask"}, "pairs": {
        "bert/masked-lm": {"cpu": {"status": "verified", "reason": ""}, "npu": {"status": "fails", "reason": "too long"}},
        "both/ctc": {"cpu": {"status": "verified", "reason": ""}},
        "both/speech": {"cpu": {"status": "cannot be built", "reason": "no"}}}}"""
    )

    found = Verification.read(file)

    assert found.transformers == "9.9"
    assert found.families["bert"] == {"cpu": {"fill-mask": "verified"}, "npu": {"fill-mask": "fails: too long"}}
    assert found.families["both"] == {"cpu": {"asr": "verified"}}
    assert Verification.read(tmp_path / "none.json").families == {}


def test_families_of_this_release_have_findings() -> None:
    family = FAMILIES.family("hf_bert", SKILLS)

    assert family.verification["cpu"]["fill-mask"] == "verified"
    assert family.verified[0] == "cpu"
    assert family.verified_with
