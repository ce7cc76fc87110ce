"""ONNX gives PyTorch's logits, or no file is left."""

import builtins
import sys

import pytest
import timm
import torch

from vcr_zoo.cli import main
from vcr_zoo.hub import onnx as ours

NAME = "test_resnet.vcr_fmnist4"
NEEDED = ("onnx", "onnxruntime", "onnxscript")


@pytest.fixture
def extra():
    for name in NEEDED:
        pytest.importorskip(name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_onnx_runtime_gives_the_same_logits_for_any_batch(extra, tmp_path):
    import onnxruntime

    path = tmp_path / "net.onnx"
    assert ours.export(NAME, path) < 1e-4
    session = onnxruntime.InferenceSession(str(path))
    model = timm.create_model(NAME, pretrained=True).eval()
    for batch in (1, 5):
        x = torch.randn(batch, 3, 32, 32)
        (found,) = session.run(None, {"pictures": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), model(x).detach(), rtol=0, atol=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_logits_leave_no_file(extra, tmp_path, monkeypatch):
    monkeypatch.setattr(ours, "TOLERANCE", -1.0)

    with pytest.raises(ValueError, match="not exported"):
        ours.export(NAME, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_without_the_extra_the_command_says_what_to_install(monkeypatch, capsys, tmp_path):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] in NEEDED:
            raise ImportError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    for name in NEEDED:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["export", NAME, "--onnx", str(tmp_path / "x.onnx")]) == 2
    assert "pip install 'vcr_zoo[onnx]'" in capsys.readouterr().err
