"""Published tokenizers, against imitations of their state dicts."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from heptapod.data.decoding import to_rgb
from heptapod.grid import GridSpec
from heptapod.tokenizers import TokenizerConfig
from heptapod.tokenizers.base import PUBLISHED_TOKENIZERS, to_float
from heptapod.tokenizers.codebook import nearest
from heptapod.tokenizers.pretrained import (
    DiffusersKLConfig,
    DiffusersVQConfig,
    LlamaGenVQConfig,
    MarKLConfig,
    MaskGITVQConfig,
    PretrainedTokenizer,
    Taef2Config,
    build_pretrained,
    import_pretrained,
)
from heptapod.utils.config import from_dict, settings, to_dict
from heptapod.utils.files import load_strictly, read_tensors, write_tensors
from tests.conftest import SHARED_DATA
from tests.tokenizers.published import (
    Shapes,
    State,
    blank_state,
    ldm_decode,
    ldm_encode,
    ldm_shapes,
    maskgit_decode,
    maskgit_encode,
    maskgit_shapes,
    random_state,
    run_conv,
    taef2_block,
    taef2_shapes,
)

needs_diffusers = pytest.mark.skipif(find_spec("diffusers") is None, reason="diffusers is not installed")
needs_taef2 = pytest.mark.skipif(not (SHARED_DATA / "taef2").is_dir(), reason="the published weights are not here")


def images_of(count: int = 1, size: int = 64) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


# ---- Published single files ------------------------------------------------------------------------------------------


PUBLISHED: dict[str, tuple[Shapes, int, str, str | None]] = {  # shapes, numbers, file name, what it is nested under
    "llamagen_vq16": (ldm_shapes(False), 71_883_403 + 65_536, "vq.pt", "model"),  # its authors say 72M
    "mar_kl16": (ldm_shapes(True), 66_456_019, "kl16.safetensors", None),  # its file has 254 MiB
    "maskgit_vq": (maskgit_shapes(), 54_515_587, "maskgit.bin", None),  # TiTok's authors say 54M
}


@pytest.fixture(scope="module", params=PUBLISHED)
def published(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[State, PretrainedTokenizer]]:
    if request.param != "maskgit_vq":
        pytest.importorskip("diffusers")
    shapes, _, name, under = PUBLISHED[request.param]
    state = random_state(shapes)
    file = tmp_path_factory.mktemp("published") / name
    save_file(state, file) if file.suffix == ".safetensors" else torch.save({under: state} if under else state, file)
    tokenizer = import_pretrained(request.param, file)
    file.unlink()
    yield state, tokenizer
    del state, tokenizer


@pytest.mark.parametrize("kind", PUBLISHED)
def test_published_sizes(kind: str) -> None:
    shapes, count, _, _ = PUBLISHED[kind]
    assert sum(map(math.prod, shapes.values())) == count
    assert len(shapes) == {"llamagen_vq16": 344, "mar_kl16": 312, "maskgit_vq": 168}[kind]


def test_every_published_tensor_arrives(published: tuple[State, PretrainedTokenizer]) -> None:
    state, tokenizer = published
    own = tokenizer.state_dict()
    pointers = [tensor.data_ptr() for tensor in own.values()]
    assert len(set(pointers)) == len(pointers), "shared tensors cannot be stored"
    fingerprints = {(tensor.numel(), round(tensor.double().sum().item(), 6)) for tensor in own.values()}
    for name, tensor in state.items():
        if name != "quantize.codebook_used":
            assert (tensor.numel(), round(tensor.double().sum().item(), 6)) in fingerprints, name
    assert not tokenizer.training


@torch.no_grad()
def test_published_weights_do_what_they_did(published: tuple[State, PretrainedTokenizer]) -> None:
    state, tokenizer = published
    kind = tokenizer.config.kind
    images = images_of()
    grid = tokenizer.grid(64, 64)
    tokens = tokenizer.encode(images)
    assert tokens.shape == (1, *grid.token_shape)
    assert (grid.height, grid.width, grid.num_cells) == (4, 4, 16)
    if kind == "mar_kl16":
        assert grid == GridSpec(4, 4, channels=16)
        mean = ldm_encode(state, True, images)[:, :16]
        torch.testing.assert_close(tokens, mean.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)
        expected = ldm_decode(state, True, mean)
    elif kind == "llamagen_vq16":
        assert grid == GridSpec(4, 4, 16384)
        sphere = F.normalize(state["quantize.embedding.weight"].float(), dim=-1)
        vectors = ldm_encode(state, False, images).flatten(2).transpose(1, 2)[0]
        codes = (F.normalize(vectors, dim=-1) @ sphere.T).argmax(-1)
        assert torch.equal(tokens[0], codes)
        expected = ldm_decode(state, False, sphere[codes].T.view(1, 8, 4, 4))
    else:
        assert grid == GridSpec(4, 4, 1024)
        table = state["quantize.embedding.weight"].float()
        vectors = maskgit_encode(state, (images + 1) / 2).flatten(2).transpose(1, 2)[0]
        codes = torch.cdist(vectors, table).argmin(-1)
        assert torch.equal(tokens[0], codes)
        expected = maskgit_decode(state, table[codes].T.view(1, 256, 4, 4)) * 2 - 1
    decoded = tokenizer.decode(tokens, grid)
    assert decoded.shape == images.shape
    assert (decoded.abs() < 1).float().mean() > 0.3, "most pixels are clamped: nothing to compare"
    torch.testing.assert_close(decoded, expected.clamp(-1, 1), atol=1e-4, rtol=1e-4)


BAD = {
    "lacks": lambda state: {k: v for k, v in state.items() if k != "encoder.conv_in.weight"},
    "has unknown": lambda state: state | {"encoder.conv_in.scale": torch.zeros(1)},
    "needed": lambda state: state | {"encoder.conv_in.weight": torch.zeros(128, 4, 3, 3)},
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_published_files_that_do_not_fit(kind: str, tmp_path: Path) -> None:
    if kind != "maskgit_vq":
        pytest.importorskip("diffusers")
    config: TokenizerConfig
    config = {"llamagen_vq16": LlamaGenVQConfig(), "mar_kl16": MarKLConfig(), "maskgit_vq": MaskGITVQConfig()}[kind]
    tokenizer = build_pretrained(config)
    file = tmp_path / "weights.pt"
    for words, change in BAD.items():
        torch.save({"state_dict": change(blank_state(PUBLISHED[kind][0]))}, file)
        with pytest.raises(ValueError, match=rf"weights\.pt: weights of another .*{words}") as caught:
            tokenizer.load_published(file)
        assert "encoder.conv_in." in str(caught.value)
        assert "\n" not in str(caught.value)
    if kind == "llamagen_vq16":  # attention published as linear layers is another architecture
        state = blank_state(PUBLISHED[kind][0]) | {"decoder.conv_blocks.0.attn.2.k.weight": torch.zeros(512, 512)}
        torch.save(state, file)
        with pytest.raises(ValueError, match=r"attn\.2\.k\.weight is \(512, 512\), needed \(512, 512, 1, 1\)"):
            tokenizer.load_published(file)
    if kind == "mar_kl16":  # what its trainer keeps besides is passed over
        torch.save({"model": blank_state(PUBLISHED[kind][0]) | {"loss.logvar": torch.zeros(())}}, file)
        tokenizer.load_published(file)
        assert all(not parameter.any() for parameter in tokenizer.parameters())


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    with pytest.raises(FileNotFoundError, match=r"weights\.pt: no such file"):
        import_pretrained("maskgit_vq", file)
    for content in ({"model": Path("x")}, {"model": {"a": 1}}, [torch.zeros(1)], GridSpec(1, 1, 2)):
        torch.save(content, file)
        with pytest.raises(ValueError, match=r"weights\.pt: ") as caught:
            import_pretrained("maskgit_vq", file)
        assert "\n" not in str(caught.value)
    torch.save({"a": torch.zeros(1000)}, file)
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(ValueError, match=r"weights\.pt: damaged"):
        import_pretrained("maskgit_vq", file)
    file.with_suffix(".safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"weights\.safetensors: truncated or damaged"):
        import_pretrained("maskgit_vq", file.with_suffix(".safetensors"))


# ---- TAEF2 -----------------------------------------------------------------------------------------------------------


PHOTOS = {0: 32.30, 49: 20.67, 68: 38.59}
"""dB of the first photo, the hardest and the easiest of the 100; all have 29.29 dB on average."""


def write_taef2(folder: Path, encoder: State, decoder: State) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(encoder, folder / "taef2_encoder.safetensors")
    save_file(decoder, folder / "taef2_decoder.safetensors")
    return folder


@torch.no_grad()
def test_taef2_against_functions(tmp_path: Path) -> None:
    encoder, decoder = (random_state(shapes) for shapes in taef2_shapes())
    tokenizer = import_pretrained("taef2", write_taef2(tmp_path, encoder, decoder), patch=2)
    images = images_of(2, 32)
    grid = tokenizer.grid(32, 32)
    assert grid == GridSpec(2, 2, channels=128)

    x = run_conv(encoder, "0", (images + 1) / 2)
    for i in range(1, 14):
        x = run_conv(encoder, str(i), x, stride=2) if i in (2, 6, 10) else taef2_block(encoder, str(i), x)
    latent = run_conv(encoder, "14", x)
    tokens = tokenizer.encode(images)
    torch.testing.assert_close(tokens.transpose(1, 2).view(2, 128, 2, 2), F.pixel_unshuffle(latent, 2))

    x = F.relu(run_conv(decoder, "1", 3 * torch.tanh(latent / 3)))
    for i in (3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 15, 17, 18):
        if i in (7, 12, 17):
            x = run_conv(decoder, str(i), x.repeat_interleave(2, 2).repeat_interleave(2, 3))
        else:
            x = taef2_block(decoder, str(i), x)
    expected = run_conv(decoder, "19", x) * 2 - 1
    decoded = tokenizer.decode(tokens, grid)
    assert (decoded.abs() < 1).float().mean() > 0.3
    torch.testing.assert_close(decoded, expected.clamp(-1, 1), atol=1e-4, rtol=1e-4)


def test_taef2_variants_are_refused(tmp_path: Path) -> None:
    encoder, decoder = (random_state(shapes) for shapes in taef2_shapes())
    with pytest.raises(FileNotFoundError, match=r"taef2_encoder\.safetensors: no such file"):
        import_pretrained("taef2", tmp_path)
    for change, file, words in [
        (lambda: (encoder, {k: v for k, v in decoder.items() if k != "19.bias"}), "decoder", r"lacks 19\.bias"),
        (lambda: (encoder | {"15.bias": torch.zeros(1)}, decoder), "encoder", r"has unknown 15\.bias"),
        (lambda: (encoder, decoder | {"12.weight": torch.zeros(64, 32, 3, 3)}), "decoder", r"12\.weight is \(64, 32"),
        (lambda: tuple(map(random_state, taef2_shapes(has_pool=False))), "encoder", r"lacks 11\.pool\.0\.weight"),
        (lambda: tuple(map(random_state, taef2_shapes(latent=16))), "encoder", r"14\.weight is \(16, 64, 3, 3\), nee"),
    ]:
        write_taef2(tmp_path, *change())
        with pytest.raises(ValueError, match=rf"taef2_{file}\.safetensors: .*{words}"):
            import_pretrained("taef2", tmp_path)


@needs_taef2
@torch.no_grad()
def test_taef2_reconstructs_photographs() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    tokenizer = import_pretrained("taef2", SHARED_DATA / "taef2")
    assert sum(parameter.numel() for parameter in tokenizer.parameters()) == 2_677_027
    assert all(parameter.dtype == torch.float32 for parameter in tokenizer.parameters())
    rows = parquet.read_table(SHARED_DATA / "photos/photos.parquet")["image"].to_pylist()
    for row, expected in PHOTOS.items():
        pixels = torch.from_numpy(to_rgb(Image.open(io.BytesIO(rows[row]["bytes"])), 256))
        images = to_float(pixels)[None]
        tokens = tokenizer.encode(images)
        assert tokens.shape == (1, 32 * 32, 32)
        assert 0.5 < tokens.std() < 1.2
        decoded = tokenizer.decode(tokens, tokenizer.grid(256, 256))
        error = ((decoded - images) / 2).square().mean()
        assert -10 * math.log10(error) == pytest.approx(expected, abs=0.05), row


# ---- diffusers folders -----------------------------------------------------------------------------------------------


TINY: dict[str, Any] = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 4,
}


def save_tiny(folder: Path, class_name: str, **options: Any) -> Any:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = getattr(diffusers, class_name)(**TINY | options).eval()
    model.save_pretrained(folder)
    return model


@torch.no_grad()
@pytest.mark.parametrize("patch", [1, 2])
def test_autoencoder_kl_folder(tmp_path: Path, patch: int) -> None:
    model = save_tiny(tmp_path, "AutoencoderKL", latent_channels=5)
    tokenizer = import_pretrained("diffusers_kl", tmp_path, patch)
    images = images_of(2, 32)
    grid = tokenizer.grid(32, 32)
    assert grid == GridSpec(16 // patch, 16 // patch, channels=5 * patch**2)
    tokens = tokenizer.encode(images)
    latent = model.encode(images).latent_dist.mean
    patches = F.pixel_unshuffle(latent, patch).flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens, patches, atol=1e-6, rtol=0)
    decoded = tokenizer.decode(tokens, grid)
    torch.testing.assert_close(decoded, model.decode(latent).sample.clamp(-1, 1), atol=1e-6, rtol=0)
    check_store(tokenizer, tmp_path / "ours.safetensors")


@torch.no_grad()
@pytest.mark.parametrize("is_movq", [False, True], ids=["vq", "movq"])
def test_vq_model_folder(tmp_path: Path, is_movq: bool) -> None:
    options: dict[str, Any] = {"latent_channels": 4, "vq_embed_dim": 3, "num_vq_embeddings": 7}
    if is_movq:
        options |= {"norm_type": "spatial", "vq_embed_dim": 4, "block_out_channels": [32, 64], "norm_num_groups": 32}
    model = save_tiny(tmp_path, "VQModel", lookup_from_codebook=True, **options)
    tokenizer = import_pretrained("diffusers_vq", tmp_path)
    images = images_of(2, 32)
    grid = tokenizer.grid(32, 32)
    assert grid == GridSpec(16, 16, 7)
    codes = model.quantize(model.encode(images).latents)[2][2]
    tokens = tokenizer.encode(images)
    assert torch.equal(tokens.flatten(), codes)
    shape = (2, 16, 16, options["vq_embed_dim"])
    expected = model.decode(codes, force_not_quantize=True, shape=shape).sample.clamp(-1, 1)
    torch.testing.assert_close(tokenizer.decode(tokens, grid), expected, atol=1e-6, rtol=0)
    check_store(tokenizer, tmp_path / "ours.safetensors")


def check_store(tokenizer: PretrainedTokenizer, file: Path) -> None:
    """Settings through JSON and weights through safetensors give the same tokenizer."""
    write_tensors(file, tokenizer.state_dict())
    values = json.loads(json.dumps(to_dict(tokenizer.config)))
    again = build_pretrained(from_dict(_Holder, {"tokenizer": values}).tokenizer).eval()
    load_strictly(again, read_tensors(file), file)
    images = images_of(1, 32)
    assert torch.equal(tokenizer.encode(images), again.encode(images))
    assert type(again) is type(tokenizer)
    assert again.config == tokenizer.config


@settings
class _Holder:
    tokenizer: Annotated[TokenizerConfig, PUBLISHED_TOKENIZERS]


@torch.no_grad()
def test_old_attention_names(tmp_path: Path) -> None:
    model = save_tiny(tmp_path, "AutoencoderKL", latent_channels=2)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = load_file(file)
    for new, name in old.items():
        assert any(new in key for key in tensors)
        tensors = {key.replace(new, name): tensor for key, tensor in tensors.items()}
    save_file(tensors, file)
    tokenizer = import_pretrained("diffusers_kl", tmp_path)
    images = images_of(1, 16)
    latent = model.encode(images).latent_dist.mean
    assert torch.equal(tokenizer.encode(images), latent.flatten(2).transpose(1, 2))
    key = "encoder.mid_block.attentions.0.query.bias"
    save_file(tensors | {key.replace("query", "to_q"): tensors[key].clone()}, file)
    with pytest.raises(ValueError, match=r"safetensors: holds encoder\.mid_block\.attentions\.0\.to_q\.bias twice"):
        import_pretrained("diffusers_kl", tmp_path)


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    save_tiny(tmp_path, "AutoencoderKL")
    with pytest.raises(ValueError, match=r"config\.json: _class_name is 'AutoencoderKL', needed 'VQModel'"):
        import_pretrained("diffusers_vq", tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    for change, words in [
        (lambda: {k: v for k, v in tensors.items() if k != "quant_conv.bias"}, r"lacks quant_conv\.bias"),
        (lambda: tensors | {"extra.bias": torch.zeros(1)}, r"has unknown extra\.bias"),
        (lambda: tensors | {"quant_conv.bias": torch.zeros(3)}, r"quant_conv\.bias is \(3,\), needed \(8,\)"),
    ]:
        save_file(change(), file)
        with pytest.raises(ValueError, match=rf"diffusion_pytorch_model\.safetensors: .*{words}"):
            import_pretrained("diffusers_kl", tmp_path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"diffusion_pytorch_model\.safetensors: no such file"):
        import_pretrained("diffusers_kl", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config\.json: no such file"):
        import_pretrained("diffusers_kl", tmp_path / "nowhere")


@needs_diffusers
@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ({"latents": 4}, r"architecture: AutoencoderKL takes no 'latents', allowed are .*latent_channels"),
        ({"norm_num_groups": 5}, r"architecture: AutoencoderKL cannot be built from it"),
        ({"in_channels": 1}, r"architecture: in_channels is 1, must be 3"),
    ],
)
def test_wrong_architectures(architecture: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_pretrained(DiffusersKLConfig(architecture))


# ---- Settings --------------------------------------------------------------------------------------------------------


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"kind: 'taef3' given, must be one of taef2, diffusers_kl, .*maskgit_vq"):
        import_pretrained("taef3", Path("x"))
    with pytest.raises(ValueError, match=r"patch: 2 given, must be 1 for maskgit_vq"):
        import_pretrained("maskgit_vq", Path("x"), 2)
    with pytest.raises(ValueError, match=r"^patch: 0 given, must be at least 1$"):
        import_pretrained("mar_kl16", Path("x"), 0)
    makers: list[Callable[[], object]] = [
        lambda: Taef2Config(patch=0),
        lambda: MarKLConfig(patch=0),
        lambda: DiffusersKLConfig({}, patch=0),
        lambda: DiffusersVQConfig({"_class_name": "VQModel"}),
        lambda: DiffusersVQConfig({"act_fn": torch.nn.SiLU}),
    ]
    for make in makers:
        with pytest.raises(ValueError, match=r"patch: 0 given|architecture: "):
            make()


def test_diffusers_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"VQModel needs the diffusers library: pip install 'heptapod\[pretrained\]'"):
        build_pretrained(LlamaGenVQConfig())


def test_building_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first = build_pretrained(Taef2Config())
    assert torch.equal(torch.get_rng_state(), before)
    second = build_pretrained(Taef2Config())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_nearest_in_parts_and_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    codebook, x = torch.randn(50, 4, generator=generator), torch.randn(2500, 4, generator=generator)
    expected = (x[:, None] - codebook).square().sum(-1).argmin(-1)
    assert torch.equal(nearest(x, codebook), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nearest(x, codebook), expected)
