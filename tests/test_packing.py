"""Packed models: small, the same but for rounding, and refused where they are broken or not small ones."""

import pytest
import torch

from cliperase.cli import main
from cliperase.errors import CliperaseError
from cliperase.manifest import check_result, write_result
from cliperase.models import load_model
from cliperase.models.compact import COMPACT, model_config
from cliperase.models.openclip import create_model
from cliperase.models.packing import SMALL, pack, unpack


def test_a_packed_model_is_small_and_the_same(data_folder, training, tmp_path):
    wide = create_model(model_config("wide"), seed=3).eval()
    wide.save(tmp_path / "whole")
    packed, again = tmp_path / "packed.safetensors", tmp_path / "again"
    assert main(["pack", "--model", str(tmp_path / "whole"), "--data", str(data_folder), "--output", str(packed)]) == 0
    assert main(["unpack", str(packed), "--output", str(again)]) == 0
    used = wide.tokenizer(training.texts).unique()
    table = wide.model.token_embedding.weight
    weights = sum(p.numel() for p in wide.parameters()) - table.numel() + len(used) * table.shape[1]
    assert packed.stat().st_size < 2.1 * weights  # bytes: half precision
    found = load_model(again)
    for name, weight in wide.model.state_dict().items():
        mine = found.model.state_dict()[name]
        if name == "token_embedding.weight":
            mine, weight = mine[used], weight[used]
        assert torch.equal(mine, weight.half().float() if weight.numel() > SMALL else weight), name
    texts = training.texts
    assert torch.allclose(found.encode_text(texts), wide.encode_text(texts), atol=5e-3)
    assert torch.allclose(found.encode_image(training.images), wide.encode_image(training.images), atol=5e-3)
    weights = (again / "open_clip_model.safetensors").read_bytes()
    unpack(packed, again)
    assert (again / "open_clip_model.safetensors").read_bytes() == weights
    pack(again, texts, tmp_path / "twice.safetensors")
    assert (tmp_path / "twice.safetensors").read_bytes() == packed.read_bytes()  # nothing more is lost


def test_what_cannot_be_packed_or_unpacked(model_folder, tmp_path):
    broken = tmp_path / "broken.safetensors"
    pack(model_folder, ["apple"], broken)
    broken.write_bytes(broken.read_bytes()[:2000])
    with pytest.raises(CliperaseError, match="cannot be read"):
        unpack(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(CliperaseError, match="cannot be read"):
        unpack(tmp_path / "nowhere", tmp_path / "out")
    pack(model_folder, ["apple"], broken)
    flipped = bytearray(broken.read_bytes())
    flipped[-100] ^= 1  # one bit of one weight
    broken.write_bytes(flipped)
    with pytest.raises(CliperaseError, match="its weights do not have the hash that it names"):
        unpack(broken, tmp_path / "out")
    write_result(tmp_path / "result", load_model(model_folder), {"method": "SSD"})
    pack(model_folder, ["apple"], tmp_path / "whole")
    with pytest.raises(CliperaseError, match="result holds a result, whose weights would be replaced; name another"):
        unpack(tmp_path / "whole", tmp_path / "result")
    check_result(tmp_path / "result")
    other = create_model(COMPACT, seed=1)
    other.save(tmp_path / "other")
    weights = (tmp_path / "other" / "open_clip_model.safetensors").read_bytes()
    with pytest.raises(CliperaseError, match=r"holds open_clip_config\.json of another model; name another folder"):
        unpack(tmp_path / "whole", tmp_path / "other")
    assert (tmp_path / "other" / "open_clip_model.safetensors").read_bytes() == weights
    other.config = {**other.config, "model_cfg": {**other.config["model_cfg"], "vision_cfg": {"layers": 1}}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cliperase.models.packing.load_model", lambda source: other)
        with pytest.raises(CliperaseError, match="is not one of compact, wide"):
            pack(model_folder, ["apple"], tmp_path / "packed")
