"""Published weights as people have them: with prefixes, in variants, as .bin or in shards."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from heptapod.tokenizers.pretrained import Taef2Config, build_pretrained, import_pretrained
from heptapod.tokenizers.pretrained.folder import STEM, read_folder
from tests.tokenizers.test_pretrained import save_tiny

TENSORS = {"a.weight": torch.arange(4.0), "b.weight": torch.ones(2, 2)}


def as_shards(index: str, suffix: str) -> Callable[[Path, dict[str, Tensor]], None]:
    def write(folder: Path, tensors: dict[str, Tensor]) -> None:
        places = {}
        for number, (name, tensor) in enumerate(tensors.items(), 1):
            shard = f"{STEM}-{number:05d}-of-{len(tensors):05d}.{suffix}"
            save_file({name: tensor}, folder / shard) if suffix.endswith("tensors") else torch.save(
                {name: tensor}, folder / shard
            )
            places[name] = shard
        (folder / index).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))

    return write


def whole(name: str) -> Callable[[Path, dict[str, Tensor]], None]:
    def write(folder: Path, tensors: dict[str, Tensor]) -> None:
        save_file(tensors, folder / name) if name.endswith("tensors") else torch.save(tensors, folder / name)

    return write


FORMS = {
    f"{STEM}.safetensors": whole(f"{STEM}.safetensors"),
    f"{STEM}.bin": whole(f"{STEM}.bin"),
    f"{STEM}.fp16.safetensors": whole(f"{STEM}.fp16.safetensors"),
    f"{STEM}.fp16.bin": whole(f"{STEM}.fp16.bin"),
    f"{STEM}.safetensors.index.json": as_shards(f"{STEM}.safetensors.index.json", "safetensors"),
    f"{STEM}.bin.index.json": as_shards(f"{STEM}.bin.index.json", "bin"),
    f"{STEM}.safetensors.index.fp16.json": as_shards(f"{STEM}.safetensors.index.fp16.json", "fp16.safetensors"),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_folder(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "heptapod")
    FORMS[name](tmp_path, TENSORS)
    tensors, source = read_folder(tmp_path)
    assert source == tmp_path / name
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[key], TENSORS[key]) for key in TENSORS)
    is_default = name == f"{STEM}.safetensors"
    assert caplog.messages == ([] if is_default else [f"{source}: read, as there is no {STEM}.safetensors"])


def test_which_of_several_is_read(tmp_path: Path) -> None:
    order = [f"{STEM}.fp16.bin", f"{STEM}.fp16.safetensors", f"{STEM}.bin", f"{STEM}.safetensors"]
    for name in order:
        FORMS[name](tmp_path, TENSORS)
        assert read_folder(tmp_path)[1].name == name
    for name in order[2:]:
        (tmp_path / name).unlink()
    whole(f"{STEM}.ema.safetensors")(tmp_path, TENSORS)
    with pytest.raises(ValueError, match="holds the variants ema, fp16; leave only one of them there"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged, not JSON"),
        ("{}", "weight_map: must name the file of every tensor"),
        ('{"weight_map": {"a": 3}}', "weight_map: must name the file of every tensor"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "weight_map: '/etc/passwd' given, must be the name of a shard"),
        ('{"weight_map": {"a": "../x-00001-of-00001.bin"}}', "must be the name of a shard in the same folder"),
        (f'{{"weight_map": {{"a": "{STEM}-00001-of-00001.bin"}}}}', "00001-of-00001.bin: no such file"),
    ],
)
def test_a_damaged_index(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / f"{STEM}.safetensors.index.json").write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_folder(tmp_path)


@torch.no_grad()
def test_an_autoencoder_in_half_precision_shards(tmp_path: Path) -> None:
    save_tiny(tmp_path, "AutoencoderKL")
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = import_pretrained("diffusers_kl", tmp_path).encode(images)
    tensors = load_file(tmp_path / f"{STEM}.safetensors")
    (tmp_path / f"{STEM}.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no such file, nor a \.bin, an index of shards or a variant"):
        import_pretrained("diffusers_kl", tmp_path)
    FORMS[f"{STEM}.safetensors.index.fp16.json"](tmp_path, {f"module.{name}": t.half() for name, t in tensors.items()})
    tokenizer = import_pretrained("diffusers_kl", tmp_path)
    assert tokenizer.dtype == torch.float32
    torch.testing.assert_close(tokenizer.encode(images), expected, atol=1e-2, rtol=1e-2)
    (tmp_path / "pipeline").mkdir()
    inner = tmp_path / "pipeline" / "vae"
    inner.mkdir()
    (inner / "config.json").write_text((tmp_path / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match=r"pipeline/config\.json: no such file; .*pipeline/vae has one"):
        import_pretrained("diffusers_kl", tmp_path / "pipeline")


def test_published_files_with_a_prefix(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "heptapod")
    state = build_pretrained(Taef2Config()).state_dict()
    for part in ("encoder", "decoder"):
        own = {f"_orig_mod.{name.partition('.')[2]}": t for name, t in state.items() if name.startswith(part)}
        save_file(own, tmp_path / f"taef2_{part}.safetensors")
    tokenizer = import_pretrained("taef2", tmp_path)
    assert all(torch.equal(tensor, state[name]) for name, tensor in tokenizer.state_dict().items())
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "'_orig_mod.' is left out of the names of its tensors"
    ] * 2
    own[next(iter(own))][0] = torch.nan
    save_file(own, tmp_path / "taef2_decoder.safetensors")
    with pytest.raises(
        ValueError, match=r"taef2_decoder\.safetensors: .* holds values that are infinite or not a number"
    ):
        import_pretrained("taef2", tmp_path)


@pytest.mark.parametrize("prefix", ["module.", "first_stage_model."])
def test_names_of_the_ldm_family_with_a_prefix(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("diffusers")
    from heptapod.tokenizers.pretrained.ldm import MAR_NAMES, load_renamed

    caplog.set_level(logging.INFO, "heptapod")
    own = {"encoder.mid_block.attentions.0.to_q.weight": torch.eye(2), "encoder.conv_in.bias": torch.ones(3)}

    class Tiny(torch.nn.Module):
        def state_dict(self) -> dict[str, Tensor]:  # type: ignore[override]
            return own

        def load_state_dict(self, state: dict[str, Tensor]) -> None:  # type: ignore[override]
            self.loaded = state

    tiny = Tiny()
    published = {
        f"{prefix}encoder.mid.attn_1.q.weight": torch.eye(2).view(2, 2, 1, 1),
        f"{prefix}encoder.conv_in.bias": torch.ones(3),
        f"{prefix}loss.logvar": torch.zeros(1),
    }
    load_renamed(tiny, published, MAR_NAMES, Path("kl16.ckpt"))
    assert all(torch.equal(tiny.loaded[name], tensor) for name, tensor in own.items())
    assert caplog.messages == [f"kl16.ckpt: '{prefix}' is left out of the names of its tensors"]
