"""Whole requests in the prompt language, through text encoder, LoRAs and guidance, on small random networks."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sfumato.core.errors import InvalidPrompt, UnusableAddOn
from sfumato.core.passes import Hires
from sfumato.core.requests import AddOn, GenerationRequest, PromptOptions, PromptSyntax
from sfumato.engine.addons import AddOnFiles, AddOns
from sfumato.engine.conditioning import Conditioning
from sfumato.engine.denoising import DenoiseLoop
from sfumato.engine.device import Device
from sfumato.engine.families.base import LoadedModel
from sfumato.engine.families.loading import load_model
from sfumato.engine.families.text import shipped_clip_tokenizer
from sfumato.engine.pipeline import prepare, txt2img
from sfumato.engine.prompt.embeddings import read_embedding
from sfumato.engine.prompt.schedule import Calls
from sfumato.engine.prompting import calls_of, read_prompts
from tests.engine import loras, tiny

FLOAT32 = Device(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model("tiny", str(tiny.write_folder(tmp_path_factory.mktemp("tiny"))), FLOAT32)


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    unet, _, text = tiny.networks()
    return loras.write_kohya(tmp_path / "knight.safetensors", unet, text)


def asked(prompt: str, **values: Any) -> GenerationRequest:
    defaults: dict[str, Any] = {"model": "tiny", "width": 64, "height": 64, "steps": 4, "guidance_scale": 3.0}
    return GenerationRequest(prompt=prompt, prompt_syntax=PromptSyntax.A1111, **{**defaults, **values})


def add_on(path: Path) -> AddOn:
    return AddOn(word=path.stem, name=path.stem, short_hash="0" * 12)


def adapters_in(*paths: Path) -> AddOns:
    return AddOns(AddOnFiles(), {path.stem: str(path) for path in paths}, {})


def embeddings_in(*paths: Path) -> AddOns:
    return AddOns(AddOnFiles(), {}, {path.stem: str(path) for path in paths})


def drawn(model: LoadedModel, *jobs: tuple[GenerationRequest, AddOns | None]) -> list[Tensor]:
    """Draw all jobs in one loop and return the first picture's latents of each."""
    loop, done = DenoiseLoop(), dict[str, Tensor]()
    for number, (request, add_ons) in enumerate(jobs):
        for picture in txt2img(str(number), request, model, add_ons=add_ons):
            loop.add(picture)
    while (turn := loop.turn()) is not None:
        assert not turn.failed
        done |= {picture.job_id: latents for picture, latents in turn.ended}
    return [done[str(number)] for number in range(len(jobs))]


def alike(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-3, atol=1e-3)


def states_at(model: LoadedModel, request: GenerationRequest) -> Iterator[Tensor]:
    ((course, _),) = read_prompts(request, model, AddOns()).guide.positive
    for call in range(request.steps):
        yield course.at(call).states


def test_each_call_is_conditioned_on_the_text_that_holds_for_it(model: LoadedModel) -> None:
    cat, dog = (model.prompts.encode(text, PromptSyntax.A1111).states for text in ("a cat", "a dog"))
    states = list(states_at(model, asked("a [cat:dog:0.25]", steps=8)))
    assert [torch.equal(each, cat) for each in states] == [True] * 3 + [False] * 5
    assert [torch.equal(each, dog) for each in states] == [False] * 3 + [True] * 5


def test_a_step_of_a_second_order_sampler_is_two_calls() -> None:
    assert calls_of(asked("x", steps=8, sampler="Heun")) == Calls(16)
    assert calls_of(asked("x", steps=5, sampler="Euler a"), after=Calls(8)) == Calls(5, 8)


def test_a_plain_prompt_is_only_words(model: LoadedModel) -> None:
    request = GenerationRequest(prompt="[a:b:0.5] AND <lora:x:1>", model="tiny")
    prompted = read_prompts(request, model, AddOns())
    ((course, weight),) = prompted.guide.positive
    assert (len(course.things), weight, prompted.network.name) == (1, 1.0, "tiny")
    expected = model.prompts.encode(request.prompt, PromptSyntax.PLAIN)
    assert torch.equal(course.at(0).states, expected.states)


def test_editing_changes_the_picture_from_its_call_on_and_not_before(model: LoadedModel) -> None:
    prompts = ("a cat", "a [cat:dog:0.25]", "a [cat:dog:3]")
    cat, edited, late = drawn(model, *((asked(prompt, guidance_scale=80.0), None) for prompt in prompts))
    assert not alike(cat, edited)
    assert alike(cat, late)  # 4 steps are calls 0 to 3


def test_a_composition_is_the_sum_of_its_directions(model: LoadedModel) -> None:
    """One Euler step from the same noise: x0 is linear in the directions, so pictures tell them."""
    one, other, none, both = drawn(
        model,
        (asked("a cat", steps=1), None),
        (asked("a dog", steps=1), None),
        (asked("a cat", negative_prompt="a cat", steps=1), None),
        (asked("a cat AND a dog:0.5 ", steps=1, negative_prompt="a cat"), None),
    )
    away = drawn(model, (asked("a dog", steps=1, negative_prompt="a cat"), None))[0]
    assert alike(both, none + (away - none) * 0.5)
    assert not alike(one, other)
    assert not alike(both, none)


def test_a_lora_in_the_prompt_gives_the_picture_of_merged_weights(
    model: LoadedModel, lora: Path, tmp_path: Path
) -> None:
    request = asked("a cat<lora:knight:0.5:0.8>", adapters=(add_on(lora),))
    with_lora = drawn(model, (request, adapters_in(lora)))[0]
    merged = load_model("merged", str(tiny.write_folder(tmp_path / "merged")), FLOAT32)
    loras.merge_kohya(merged.networks["unet"], loras.UNET_LAYERS, 0.8)
    loras.merge_kohya(merged.networks["text_encoder"], loras.TEXT_LAYERS, 0.5)
    by_hand, plain = drawn(merged, (asked("a cat"), None))[0], drawn(model, (asked("a cat"), None))[0]
    assert alike(with_lora, by_hand)
    assert not alike(with_lora, plain)


def test_pictures_with_and_without_a_lora_share_the_loop_and_not_the_change(model: LoadedModel, lora: Path) -> None:
    known = (add_on(lora),)
    requests = [asked("a cat", seed=1), asked("a cat<lora:knight:1>", adapters=known, seed=1), asked("a cat", seed=2)]
    together = drawn(model, *((request, adapters_in(lora)) for request in requests))
    alone = [drawn(model, (request, adapters_in(lora)))[0] for request in requests]
    assert all(alike(one, other) for one, other in zip(together, alone, strict=True))
    assert not alike(together[0], together[1])


def test_rows_under_the_same_loras_share_a_pass(model: LoadedModel, lora: Path) -> None:
    files, loop = adapters_in(lora), DenoiseLoop()
    for job in range(2):
        request = asked("a cat<lora:knight:1>", adapters=(add_on(lora),), seed=job)
        for picture in txt2img(str(job), request, model, add_ons=files):
            loop.add(picture)
    assert len(loop._buckets()) == 1


def test_tags_of_loras_that_the_server_did_not_find_are_only_taken_out(model: LoadedModel) -> None:
    prompted = read_prompts(asked("a cat<lora:nowhere:1>"), model, AddOns())
    assert prompted.network.name == "tiny"
    assert torch.equal(next(states_at(model, asked("a cat<lora:nowhere:1>"))), next(states_at(model, asked("a cat"))))


def test_tags_in_the_negative_prompt_are_text(model: LoadedModel, lora: Path) -> None:
    request = asked("a cat", negative_prompt="dog<lora:knight:1>", adapters=(add_on(lora),))
    prompted = read_prompts(request, model, adapters_in(lora))
    assert prompted.network.name == "tiny"
    expected = model.prompts.encode("dog<lora:knight:1>", PromptSyntax.A1111)
    assert torch.equal(prompted.guide.negative.at(0).states, expected.states)


def test_a_second_pass_has_prompts_and_loras_of_its_own(model: LoadedModel, lora: Path) -> None:
    request = asked("a cat", adapters=(add_on(lora),))
    files = adapters_in(lora)
    assert read_prompts(request, model, files).network.name == "tiny"
    second = read_prompts(replace(request, prompt="a [cat:dog:0.5]<lora:knight:1>"), model, files, Calls(4, 4))
    assert second.network.name != "tiny"
    ((course, _),) = second.guide.positive
    assert len({id(thing) for thing in course.things}) == 1


def test_a_file_that_is_gone_is_noted_and_the_rest_is_drawn(model: LoadedModel, lora: Path) -> None:
    prompted = read_prompts(asked("a cat<lora:knight:1>", adapters=(add_on(lora),)), model, AddOns())
    assert prompted.notes == ("The LoRA knight is no longer installed.",)


def test_a_damaged_lora_is_an_error_of_the_request(model: LoadedModel, tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(UnusableAddOn, match="broken"):
        read_prompts(asked("a<lora:broken:1>", adapters=(add_on(path),)), model, adapters_in(path))


def test_brackets_that_fit_no_rule_are_noted(model: LoadedModel) -> None:
    (note,) = read_prompts(asked("a [cat:dog:soon]"), model, AddOns()).notes
    assert "character 3" in note


def test_too_long_a_composition_is_an_error_of_the_request(model: LoadedModel) -> None:
    with pytest.raises(InvalidPrompt):
        read_prompts(asked(" AND ".join("x" * 40)), model, AddOns())


@pytest.mark.parametrize("skip", [1, 2])
def test_clip_skip_takes_an_earlier_layer_under_the_final_norm(model: LoadedModel, skip: int) -> None:
    _, _, text = tiny.networks()
    ids = shipped_clip_tokenizer().encode("a red apple", add_special_tokens=False).ids
    layers = text(torch.tensor([[49406, *ids, *[49407] * (76 - len(ids))]]), output_hidden_states=True)
    norm = next(module for name, module in text.named_modules() if name.endswith("final_layer_norm"))
    states = model.prompts.encode("a red apple", PromptSyntax.A1111, PromptOptions(clip_skip=skip)).states
    torch.testing.assert_close(states, norm(layers.hidden_states[-skip])[0], rtol=1e-4, atol=1e-4)


def test_more_layers_than_there_are_leave_the_first(model: LoadedModel) -> None:
    deep, deepest = (
        model.prompts.encode("x", PromptSyntax.A1111, PromptOptions(clip_skip=skip)).states for skip in (2, 12)
    )
    assert torch.equal(deep, deepest)


def embedding_file(folder: Path, name: str, **tensors: Tensor) -> Path:
    save_file(tensors, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


def test_an_embedding_of_known_words_is_those_words(model: LoadedModel, tmp_path: Path) -> None:
    """Vectors copied from the vocabulary's table must encode as the words they were copied from."""
    _, _, text = tiny.networks()
    ids = shipped_clip_tokenizer().encode("red apple", add_special_tokens=False).ids
    path = embedding_file(tmp_path, "zwx-7", emb_params=text.get_input_embeddings().weight[ids])
    request = asked("a ZWX-7 on (zwx-7:1.2)", embeddings=(add_on(path),))
    prompted = read_prompts(request, model, embeddings_in(path))
    expected = model.prompts.encode("a red apple on (red apple:1.2)", PromptSyntax.A1111)
    torch.testing.assert_close(prompted.guide.positive[0][0].at(0).states, expected.states)
    negative = read_prompts(asked("", negative_prompt="zwx-7", embeddings=(add_on(path),)), model, embeddings_in(path))
    expected = model.prompts.encode("red apple", PromptSyntax.A1111)
    torch.testing.assert_close(negative.guide.negative.at(0).states, expected.states)


def test_embeddings_stand_in_both_of_xls_towers(tmp_path: Path) -> None:
    """A vector must encode as a word whose rows in both vocabularies were made that vector."""
    xl = load_model("xl", str(tiny.write_folder(tmp_path / "xl", tiny.SDXL)), FLOAT32)
    vector, word = torch.linspace(-1, 1, tiny.WIDTH), xl.prompts.encoder.tokenize("apple")[0]
    for name in ("text_encoder", "text_encoder_2"):
        table = xl.networks[name].get_input_embeddings()  # type: ignore[operator]
        table.weight[word] = vector
    path = embedding_file(tmp_path, "zwx", emb_params=vector)
    request = asked("a red zwx", embeddings=(add_on(path),))
    given = read_prompts(request, xl, embeddings_in(path)).guide.positive[0][0].at(0)
    expected = xl.prompts.encode("a red apple", PromptSyntax.A1111)
    torch.testing.assert_close(given.states, expected.states)
    torch.testing.assert_close(given.extras["text_embeds"], expected.extras["text_embeds"])


def test_a_second_pass_runs_under_its_own_loras_only(model: LoadedModel, lora: Path) -> None:
    second = Hires(
        width=64, height=64, enlarged_width=64, enlarged_height=64, strength=0.5, prompt="a cat<lora:knight:1>"
    )
    request = asked("a cat", hires=second, adapters=(add_on(lora),))
    loop, networks = DenoiseLoop(), list[str]()
    for picture in prepare("job", request, lambda name: model, {}, add_ons=adapters_in(lora)):
        loop.add(picture)
    while len(loop):
        networks += (key.model for key in loop._buckets())
        assert not getattr(loop.turn(), "failed", None)
    assert networks[:4] == ["tiny"] * 4
    assert len(networks) > 4
    assert all(name.startswith("tiny with") for name in networks[4:])


def test_an_embedding_of_another_width_is_noted_and_its_name_a_word(model: LoadedModel, tmp_path: Path) -> None:
    path = embedding_file(tmp_path, "wide", emb_params=torch.zeros(2, 1024))
    prompted = read_prompts(asked("wide", embeddings=(add_on(path),)), model, embeddings_in(path))
    assert prompted.notes == ("The embedding wide was made for another family; its name is only a word.",)


@pytest.mark.parametrize(
    ("tensors", "count", "widths"),
    [
        ({"emb_params": torch.zeros(3, 768)}, 3, {768}),
        ({"clip_l": torch.zeros(2, 768), "clip_g": torch.zeros(2, 1280)}, 2, {768, 1280}),
        ({"<knight>": torch.zeros(768)}, 1, {768}),
        ({"<knight>": torch.zeros(4, 1024)}, 4, {1024}),
    ],
)
def test_embeddings_of_every_layout_are_read(
    tmp_path: Path, tensors: dict[str, Tensor], count: int, widths: set[int]
) -> None:
    vectors = read_embedding("e", embedding_file(tmp_path, "e", **tensors)).vectors
    assert len(vectors) == count
    assert {width: tensor.shape for width, tensor in vectors[0].items()} == {width: (width,) for width in widths}


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"a": torch.zeros(1, 8), "b": torch.zeros(1, 8)}, "2 tensors"),
        ({"clip_l": torch.zeros(2, 768), "clip_g": torch.zeros(3, 1280)}, "table of vectors"),
        ({"emb_params": torch.zeros(2, 3, 4)}, "table of vectors"),
        ({"emb_params": torch.zeros(76, 8)}, "76 vectors"),
        ({"emb_params": torch.zeros(2, 8, dtype=torch.int32)}, "table of vectors"),
    ],
)
def test_what_is_no_embedding_is_refused(tmp_path: Path, tensors: dict[str, Tensor], reason: str) -> None:
    with pytest.raises(UnusableAddOn, match=reason):
        read_embedding("e", embedding_file(tmp_path, "e", **tensors))


def test_a_pickled_embedding_is_not_read(tmp_path: Path) -> None:
    torch.save({"string_to_param": {"*": torch.zeros(1, 8)}}, tmp_path / "e.pt")
    with pytest.raises(UnusableAddOn, match="cannot be read"):
        read_embedding("e", tmp_path / "e.pt")


def test_a_file_is_read_once_and_again_when_it_changes(tmp_path: Path) -> None:
    path, files = embedding_file(tmp_path, "e", emb_params=torch.zeros(1, 8)), AddOnFiles()
    first = files.embedding("e", str(path))
    assert files.embedding("e", str(path)) is first
    embedding_file(tmp_path, "e", emb_params=torch.ones(3, 8))
    assert len(files.embedding("e", str(path)).vectors) == 3


def test_conditionings_of_equal_texts_are_the_same_object(model: LoadedModel) -> None:
    ((course, _),) = read_prompts(asked("[a|b]", steps=8), model, AddOns()).guide.positive
    things: list[Conditioning] = list(course.things)
    assert len({id(thing) for thing in things}) == 2
