"""Trained here, pushed, loaded by plain timm in a process without vcr_zoo: the same logits."""

import json
import os
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import load, load_file, save_file

from tests.data.sets import write_tree
from vcr_zoo import zoo
from vcr_zoo.hub.push import push
from vcr_zoo.hub.release import Release, weight_files
from vcr_zoo.training import parse, train

from .clients import TOKEN

# timm's folders of pictures leave closing the files to Python
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SIZES = {  # architecture, each of another module of timm -> pixels; None: those it was made for
    "test_resnet": 32,
    "test_vit": None,
    "test_convnext": 64,
    "test_efficientnet": 64,
    "test_mambaout": 64,
    "test_nfnet": 64,
    "test_maxvit": None,
    "test_byobnet": 64,
    "mobilenetv3_small_050": 64,
    "regnetx_002": 64,
    "ghostnet_050": 64,
    "edgenext_xx_small": 64,
    "fastvit_t8": 64,
    "efficientformerv2_s0": None,
    "tiny_vit_5m_224": None,
    "levit_128s": None,
    "xcit_nano_12_p16_224": None,
    "densenet121": 64,
    "starnet_s1": 64,
    "pvt_v2_b0": 64,
    "coat_tiny": None,
}
QUICK = ["test_resnet", "test_vit"]
PLAIN_TIMM = """
import sys, timm, torch
from safetensors.torch import load_file
name, stored = sys.argv[1:]
model = timm.create_model("hf-hub:" + name, pretrained=True).eval()
assert not [m for m in sys.modules if m.startswith("vcr_zoo")]
given = load_file(stored)
with torch.inference_mode():
    plain = model(given["x"])
    last = model.to(memory_format=torch.channels_last)(
        given["x"].contiguous(memory_format=torch.channels_last)
    )
assert plain.equal(given["plain"]), (plain - given["plain"]).abs().max()
assert last.equal(given["last"]), (last - given["last"]).abs().max()
print("equal to the bit", given["x"].shape)
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    for part in ("train", "validation"):
        write_tree(root / part, ("a", "b"), 4)
    return root


def trained(architecture: str, size: int | None, pictures, folder):
    """The EMA's weights as the checkpoint has them, in a fresh network; and the run's folder."""
    options = "-b 4 --epochs 1 --warmup-epochs 0 --workers 0 --lr 0.01 --num-classes 2"
    options += " --channels-last --model-ema --model-ema-decay 0.5 --vcr-alpha 1 --vcr-beta 1"
    options += f" --vcr-layers pooled --model {architecture} --output {folder} --experiment run"
    if size:
        options += f" --input-size 3 {size} {size}"
    run = train(parse([str(pictures), *options.split()]), progress=False)
    state = torch.load(run.folder / "last.pth.tar", weights_only=False)["state_dict_ema"]
    model = timm.create_model(architecture, num_classes=2)
    model.load_state_dict({k: v.contiguous() for k, v in state.items()})
    return model.eval(), run.folder


def released(name: str, run) -> Release:
    """What `release` makes of a run's weights, without the card that these have no results for."""
    config = json.loads((run / "config.json").read_text())
    files = weight_files(load_file(run / "model.safetensors"), config)
    card = b"---\nlicense: mit\n---\n"
    return Release(name, f"org/{name}", {**files, "README.md": card}, {})


def logits(model, x):
    with torch.inference_mode():
        plain = model(x)
        model = model.to(memory_format=torch.channels_last)
        last = model(x.contiguous(memory_format=torch.channels_last))
    return {"x": x, "plain": plain.contiguous(), "last": last.contiguous()}


def load_in_a_process_of_its_own(hub, name, stored, tmp_path):
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    env["HF_HOME"] = str(tmp_path / "home")
    command = [sys.executable, "-c", PLAIN_TIMM, f"org/{name}", str(stored)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "equal to the bit" in done.stdout


@pytest.mark.parametrize(
    "architecture",
    [a if a in QUICK else pytest.param(a, marks=pytest.mark.slow) for a in SIZES],
)
def test_channels_last_and_ema_to_plain_timm(architecture, pictures, hub, tmp_path):
    torch.manual_seed(0)
    model, run = trained(architecture, SIZES[architecture], pictures, tmp_path)
    name = f"{architecture}.vcr_made"
    push(released(name, run), endpoint=hub.url, token=TOKEN)

    side = SIZES[architecture] or model.pretrained_cfg["input_size"][-1]
    save_file(logits(model, torch.randn(2, 3, side, side)), tmp_path / "logits.safetensors")
    load_in_a_process_of_its_own(hub, name, tmp_path / "logits.safetensors", tmp_path)


def test_half_precision_is_the_rounded_network(hub, tmp_path):
    """Packaged weights: the logits of the network whose weights are rounded to half."""
    name = "test_resnet.vcr_fmnist4"
    model = timm.create_model(name, pretrained=True).eval()
    entry = zoo.manifest()[name]
    rounded = load_file(entry.file)
    assert all(v.dtype == torch.float16 for v in rounded.values() if v.is_floating_point())

    from vcr_zoo.hub.release import config_of

    files = {**weight_files(rounded, config_of(entry)), "README.md": b"---\nlicense: mit\n---\n"}
    push(Release(name, f"org/{name}", files, {}), endpoint=hub.url, token=TOKEN)
    save_file(logits(model, torch.randn(2, 3, 32, 32)), tmp_path / "logits.safetensors")
    load_in_a_process_of_its_own(hub, name, tmp_path / "logits.safetensors", tmp_path)


def test_equal_weights_are_equal_files_whatever_their_layout():
    """Channels-last, views of one storage, the order of keys: the same bytes, the same sha256."""
    model = timm.create_model("test_resnet")
    state = model.state_dict()
    last = {
        k: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in state.items()
    }
    flat = torch.cat([v.float().flatten() for v in state.values()])
    views = {}
    for key, value in reversed(state.items()):
        at = sum(v.numel() for k, v in list(state.items())[: list(state).index(key)])
        views[key] = flat[at : at + value.numel()].view(value.shape).to(value.dtype)

    assert zoo.canonical(state) == zoo.canonical(last) == zoo.canonical(views)
    assert load(zoo.canonical(state))["fc.weight"].equal(state["fc.weight"])


def test_shared_tensors_come_back_apart(pictures):
    """safetensors refuses tensors that share memory; ours are cloned and equal."""
    shared = torch.randn(4, 4)
    files = weight_files({"a": shared, "b": shared, "c": shared[1:3]}, {})

    again = load(files["model.safetensors"])
    assert again["a"].equal(shared) and again["b"].equal(shared) and again["c"].equal(shared[1:3])


def test_weights_that_are_not_numbers_are_not_published():
    with pytest.raises(ValueError, match="w has values that are not finite"):
        weight_files({"w": torch.tensor([float("nan")])}, {})


def test_the_averaged_weights_are_not_the_last_ones(pictures, tmp_path):
    """Else the round trip could not tell whether the EMA's were published."""
    _, run = trained("test_resnet", 32, pictures, tmp_path)
    stored = torch.load(run / "last.pth.tar", weights_only=False)
    published = load_file(run / "model.safetensors")["fc.weight"]

    assert published.equal(stored["state_dict_ema"]["fc.weight"])
    assert not published.equal(stored["state_dict"]["fc.weight"])
