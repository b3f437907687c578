"""Infotext: the exact text, and that what is written is read back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.requests import (
    AddOn,
    Emphasis,
    GenerationRequest,
    GuidanceSkips,
    NoiseSource,
    PromptOptions,
    SamplerOptions,
    ScheduleOptions,
    SeedResize,
    UniPCOptions,
    UniPCVariant,
    Variation,
)
from sfumato.core.sampling import SAMPLERS, SCHEDULES
from sfumato.storage import infotext
from tests.factories import make_model, make_request

HASH = "0123456789abcdef" * 4


def last_line(made: GenerationRequest, **facts: object) -> str:
    return infotext.build(made, version="0.1.0", **facts).rpartition("\n")[2]  # type: ignore[arg-type]


def test_the_whole_text_of_an_ordinary_request() -> None:
    made = make_request(steps=20, negative_prompt="blurry", width=512, height=768, sampler="DPM++ 2M", guidance_scale=7)
    assert infotext.build(made, index=2, model=make_model("tiny", sha256=HASH), version="0.1.0") == (
        "a red apple\n"
        "Negative prompt: blurry\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.0, Seed: 9, Size: 512x768, "
        "Model hash: 0123456789, Model: tiny, Version: sfumato 0.1.0"
    )


def test_an_empty_negative_prompt_has_no_line() -> None:
    assert infotext.build(make_request(), version="1").startswith("a red apple\nSteps: ")


def test_a_model_without_a_hash_has_no_hash_key() -> None:
    assert "Model hash" not in last_line(make_request(), model=make_model(sha256=None))


@pytest.mark.parametrize(
    ("sampler", "schedule", "label"),
    [
        ("DPM++ 2M", "Automatic", "Karras"),
        ("DPM++ 2M", "sgm_uniform", "SGM Uniform"),
        ("Euler a", "Automatic", "Automatic"),
        ("DDIM", "Automatic", "Automatic"),
        ("k_euler", "karras", "Karras"),
    ],
)
def test_the_schedule_shown_is_the_effective_one(sampler: str, schedule: str, label: str) -> None:
    assert infotext.parse(last_line(make_request(sampler=sampler, schedule=schedule)))["Schedule type"] == label


def test_the_noise_source_is_named_only_when_it_is_the_cpu() -> None:
    assert "RNG" not in last_line(make_request())
    assert "Model: test-model, RNG: CPU, Version" in last_line(make_request(noise_source=NoiseSource.CPU))


@pytest.mark.parametrize(
    ("sampler", "options", "shown"),
    [
        ("Euler a", SamplerOptions(eta=1.0), {}),
        ("Euler a", SamplerOptions(eta=0.5), {"Eta": 0.5}),
        ("DDIM", SamplerOptions(eta=1.0), {"Eta DDIM": 1.0}),
        ("DDIM", SamplerOptions(eta=0.0), {}),
        ("Euler", SamplerOptions(eta=0.5), {}),
        ("Euler", SamplerOptions(churn=2, churn_min_sigma=1), {"Sigma churn": 2.0, "Sigma tmin": 1.0}),
        ("Heun", SamplerOptions(churn_max_sigma=9, noise_scale=1.1), {"Sigma tmax": 9.0, "Sigma noise": 1.1}),
        ("DPM++ 2M", SamplerOptions(churn=2), {}),
        ("DPM++ 2M SDE", SamplerOptions(eta=0.5, noise_scale=1.1), {"Eta": 0.5, "Sigma noise": 1.1}),
        ("Euler a", SamplerOptions(noise_scale=1.1), {}),
    ],
)
def test_sampler_knobs_are_shown_when_used_and_not_the_default(
    sampler: str, options: SamplerOptions, shown: dict[str, float]
) -> None:
    text = last_line(make_request(sampler=sampler, sampler_options=options))
    found = infotext.parse(text)
    keys = ("Eta", "Eta DDIM", "Sigma churn", "Sigma tmin", "Sigma tmax", "Sigma noise")
    assert {key: float(found[key]) for key in keys if key in found} == shown


@pytest.mark.parametrize("emphasis", [Emphasis.NO_NORM, Emphasis.IGNORE, Emphasis.NONE])
def test_an_unusual_emphasis_is_named_when_a_prompt_has_brackets(emphasis: Emphasis) -> None:
    options = PromptOptions(emphasis=emphasis)
    text = infotext.build(make_request(prompt="a (red) apple", prompt_options=options), version="1")
    assert infotext.parse(text)["Emphasis"] == emphasis.value
    assert "Emphasis" not in last_line(make_request(prompt="an apple", prompt_options=options))
    assert "Emphasis" not in last_line(make_request(prompt="a (red) apple"))


def test_clip_skip_is_named_when_it_skips() -> None:
    assert "Clip skip" not in last_line(make_request())
    skipping = last_line(make_request(prompt_options=PromptOptions(clip_skip=2)))
    assert "Model: test-model, Clip skip: 2, Version" in skipping
    assert infotext.parse(skipping)["Clip skip"] == "2"


def test_loras_and_embeddings_are_named_with_their_hashes() -> None:
    knight = AddOn(word="knight", name="knight-v2", short_hash="0123456789ab")
    sun = AddOn(word="sun", name="sun", short_hash="1" * 12)
    odd = AddOn(word="bad, hands", name="bad, hands", short_hash="2" * 12)
    text = last_line(make_request(adapters=(knight, sun), embeddings=(odd,)))
    assert 'Lora hashes: "knight: 0123456789ab, sun: 111111111111", TI hashes: "bad, hands: 222222222222"' in text
    found = infotext.parse(text)
    assert found["Lora hashes"] == "knight: 0123456789ab, sun: 111111111111"
    assert found["TI hashes"] == "bad, hands: 222222222222"


def test_keys_come_in_the_formats_order_whatever_the_order_given() -> None:
    text = infotext.format_infotext(
        "p", "", {"Version": "1", "Mask blur": 4, "Seed": 3, "Lora hashes": "a: 1, b: 2", "Steps": 1, "VAE": None}
    )
    assert text == 'p\nSteps: 1, Seed: 3, Mask blur: 4, Lora hashes: "a: 1, b: 2", Version: 1'


@pytest.mark.parametrize(
    "value", ["a, b", "a: b", "a\nb", '"quoted"', " padded ", 'say "hi", please', "雪: 山", "plain"]
)
def test_a_value_is_read_back_however_odd(value: str) -> None:
    text = infotext.format_infotext("p", "", {"Steps": 1, "Seed": 2, "Model": value})
    assert infotext.parse(text)["Model"] == value
    assert "\n" not in text.partition("\n")[2]


def test_values_are_quoted_as_json_with_unicode_kept() -> None:
    assert json.dumps("雪: 山", ensure_ascii=False) in infotext.format_infotext("", "", {"Model": "雪: 山"})


def test_a_key_equal_to_its_value_stands_alone() -> None:
    assert infotext.format_infotext("", "", {"Steps": 1, "Hires": "Hires"}) == "Steps: 1, Hires"


PROMPTS = st.text(alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from('\n,:"()[]{}\\ ')))


def _holds_no_mark(prompt: str) -> bool:
    return not any(line.startswith("Negative prompt:") for line in prompt.split("\n"))


@given(
    prompt=PROMPTS.filter(_holds_no_mark),
    negative=PROMPTS,
    seed=st.integers(0, 2**62),
    index=st.integers(0, 63),
    steps=st.integers(1, 150),
    guidance=st.floats(0, 100),
    sampler=st.sampled_from([info.name for info in SAMPLERS]),
    schedule=st.sampled_from([info.label for info in SCHEDULES[1:]]),
    model=st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])).filter(
        lambda name: name != "Model" and infotext.parse(f"Size: {name}, A: 1, B: 2, C: 3").get("Size-1") is None
    ),
)
def test_parse_of_build_gives_the_same_fields(
    prompt: str,
    negative: str,
    seed: int,
    index: int,
    steps: int,
    guidance: float,
    sampler: str,
    schedule: str,
    model: str,
) -> None:
    made = make_request(
        prompt=prompt,
        negative_prompt=negative,
        seed=seed,
        steps=steps,
        guidance_scale=guidance,
        sampler=sampler,
        schedule=schedule,
        width=264,
        height=1024,
    )
    found = infotext.parse(infotext.build(made, index=index, model=make_model(model, sha256=HASH), version="0.1.0"))
    assert (found["Prompt"], found["Negative prompt"]) == (prompt, negative)
    assert (int(found["Seed"]), int(found["Steps"])) == (seed + index, steps)
    assert float(found["CFG scale"]) == guidance
    assert (found["Sampler"], found["Schedule type"], found["Model"]) == (sampler, schedule, model)
    assert (found["Size-1"], found["Size-2"], found["Model hash"]) == ("264", "1024", HASH[:10])


@given(st.text())
def test_any_text_can_be_parsed(text: str) -> None:
    assert "Prompt" in infotext.parse(text)


def test_a_text_without_parameters_is_all_prompt() -> None:
    assert infotext.parse("a cat\nSteps: 20, Seed: 1")["Prompt"] == "a cat\nSteps: 20, Seed: 1"


def test_absent_keys_are_filled_with_the_formats_defaults() -> None:
    found = infotext.parse("a cat\nSteps: 20, Sampler: Euler a, Seed: 1")
    assert (found["Clip skip"], found["RNG"], found["Hires resize-1"]) == ("1", "GPU", "0")
    assert (found["Schedule type"], found["Inpaint area"]) == ("Automatic", "Whole picture")


def test_emphasis_is_original_only_when_a_prompt_has_brackets() -> None:
    assert infotext.parse("a (red:1.2) cat\nSteps: 1, Seed: 2, CFG scale: 7")["Emphasis"] == "Original"
    assert "Emphasis" not in infotext.parse("a \\(red\\) cat\nSteps: 1, Seed: 2, CFG scale: 7")


def test_a_text_of_automatic1111_is_read() -> None:
    """Laid out by hand after the format's description; several negative lines, quoted values, two sizes."""
    found = infotext.parse(
        "portrait of a knight,\nsunset\nNegative prompt: blurry,\nlow quality\n"
        "Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5.5, Seed: 12, Size: 640x960, "
        "Model hash: 6ce0161689, Model: v1-5, Denoising strength: 0.4, Hires resize: 1280x1920, "
        'Lora hashes: "knight: 0a1b2c3d4e5f, sun: 1a1b2c3d4e5f", Version: v1.10.1\n'
    )
    assert found["Prompt"] == "portrait of a knight,\nsunset"
    assert found["Negative prompt"] == "blurry,\nlow quality"
    assert (found["Hires resize-1"], found["Hires resize-2"]) == ("1280", "1920")
    assert found["Lora hashes"] == "knight: 0a1b2c3d4e5f, sun: 1a1b2c3d4e5f"


def test_everything_about_noise_and_schedules_is_read_back() -> None:
    made = make_request(
        sampler="DPM2 a",
        schedule="Beta",
        variation=Variation(subseed=90, strength=0.25),
        seed_resize=SeedResize(width=512, height=768),
        eta_seed_delta=31337,
        noise_source=NoiseSource.NV,
        schedule_options=ScheduleOptions(
            min_sigma=0.1, max_sigma=12, rho=5, beta_alpha=0.5, beta_beta=0.7, discards_penultimate=True
        ),
        guidance_skips=GuidanceSkips(below_sigma=2, at_every_evaluation=True, until_fraction=0.1),
        sampler_options=SamplerOptions(starts_at_unit_variance=True),
    )
    found = infotext.parse(infotext.build(made, index=2, version="1"))
    expected = {
        "Seed": str(made.seed), "Variation seed": "92", "Variation seed strength": "0.25",
        "Seed resize from-1": "512", "Seed resize from-2": "768", "ENSD": "31337", "RNG": "NV",
        "Schedule min sigma": "0.1", "Schedule max sigma": "12.0", "Schedule rho": "5.0",
        "Beta schedule alpha": "0.5", "Beta schedule beta": "0.7", "Discard penultimate sigma": "True",
        "NGMS": "2.0", "NGMS all steps": "True", "Skip Early CFG": "0.1", "SGM noise multiplier": "True",
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected


def test_the_noise_delta_is_named_only_for_samplers_that_draw_by_it() -> None:
    assert "ENSD" not in last_line(make_request(sampler="Euler", eta_seed_delta=5))
    still = make_request(sampler="Euler a", eta_seed_delta=5, sampler_options=SamplerOptions(eta=0))
    assert "ENSD" not in last_line(still)


def test_unipcs_knobs_are_shown_when_not_the_default() -> None:
    options = UniPCOptions(variant=UniPCVariant.BH2, order=2, lowers_order_at_end=False)
    found = infotext.parse(last_line(make_request(sampler="UniPC", sampler_options=SamplerOptions(unipc=options))))
    assert (found["UniPC variant"], found["UniPC order"], found["UniPC lower order final"]) == ("bh2", "2", "False")
    assert "UniPC skip type" not in found
