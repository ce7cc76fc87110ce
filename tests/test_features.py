import contextlib
import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models import save_for_hf
from timm.utils import CheckpointSaver

from vcr_zoo import features as module
from vcr_zoo.data import Images
from vcr_zoo.features import Features, features, load_model, weights_sha256


@pytest.fixture(scope="module")
def images():
    """Forty gray pictures of 28 x 28 in four classes, from a seed."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28, 1), dtype=np.uint8)
    y = np.arange(40) % 4
    groups = y.astype(str)
    return Images(
        pixels, y, tuple("abcd"), groups, name="made", split="train", fingerprint="made" * 16
    )


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    overlay = dict(input_size=(1, 28, 28), mean=(0.3,), std=(0.25,), crop_pct=1.0)
    model = timm.create_model(
        "test_resnet", num_classes=4, in_chans=1, pretrained_cfg_overlay=overlay
    )
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # its last weights start at zero
                module.weight.uniform_(0.5, 1.5)
                module.running_mean.sub_(0.1)
                module.running_var.add_(0.1)
    return model.eval()


def by_hand(model, images):
    """Features one picture at a time, from the pixels, without any loader."""
    pixels = torch.from_numpy(images.x).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        maps = [model.forward_features((x[None] - 0.3) / 0.25) for x in pixels]
        return torch.cat([m.mean(dim=(2, 3)) for m in maps])


def test_features_are_the_pooled_vectors_in_order(model, images):
    """Batching, also with a smaller last batch, changes nothing."""
    found = features(model, images, batch_size=16)

    assert torch.allclose(found.x, by_hand(model, images), atol=1e-5)
    assert found.x.std(dim=0).mean() > 0.01  # else anything would agree
    assert found.y.tolist() == images.y.tolist()
    assert found.classes == ("a", "b", "c", "d")


def test_pooled_placement_enters_the_classifier(model, images):
    """The classifier applied to the features gives the network's logits."""
    found = features(model, images)
    pixels = torch.from_numpy(images.x).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        logits = model((pixels - 0.3) / 0.25)
        assert torch.allclose(model.get_classifier()(found.x), logits, atol=1e-5)


def test_blocks_are_pooled_side_by_side(model, images):
    """A named block is averaged over positions; several come in the order of the forward pass."""
    last = features(model, images, placement="layer4.0").x
    both = features(model, images, placement="layer4.0, layer1.0").x

    assert torch.allclose(last, by_hand(model, images), atol=1e-5)
    assert torch.equal(both[:, -last.shape[1] :], last)
    assert both.shape[1] > last.shape[1]
    assert features(model, images, placement="blocks").x.shape[1] > last.shape[1]


def test_extraction_leaves_no_trace(images):
    """Mode, batch-norm statistics, gradients and hooks are as before, also after an error."""
    model = timm.create_model("test_resnet", in_chans=1).train()
    model.bn1.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    found = features(model, images, placement="layer4.0")
    with pytest.raises(LookupError, match="layer4"):
        features(model, images, placement="layr4.0")

    assert model.training and not model.bn1.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not found.x.is_inference() and not found.x.requires_grad


def test_cache_gives_back_the_same(model, images, tmp_path):
    """One file, complete, read again without the network; beside it only an empty lock."""
    first = features(model, images, cache=tmp_path)
    (file,) = tmp_path.glob("*.safetensors")

    def never(*_):
        raise AssertionError("computed again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "compute", never)
        again = features(model, images, cache=tmp_path)

    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == file.stat().st_size
    assert torch.equal(first.x, again.x) and torch.equal(first.y, again.y)
    assert again.classes == first.classes


def test_a_cache_that_cannot_be_written_is_read(model, images, tmp_path, monkeypatch):
    """And what is not in it is computed and not kept."""
    first = features(model, images, cache=tmp_path)

    @contextlib.contextmanager
    def locked(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)
        yield

    monkeypatch.setattr(module, "lock", locked)
    with monkeypatch.context() as patch:
        patch.setattr(module, "compute", None)
        assert torch.equal(features(model, images, cache=tmp_path).x, first.x)
    elsewhere = features(model, images, cache=tmp_path / "other")
    assert torch.equal(elsewhere.x, first.x) and not [*tmp_path.glob("other/*")]


def test_who_asks_at_the_same_moment_waits_for_the_first(model, images, tmp_path, monkeypatch):
    """Cells of one network that are measured at once compute its features once."""
    calls, both = [], threading.Barrier(2)
    compute = module.compute

    def slow(*args):
        calls.append(args)
        time.sleep(0.3)
        return compute(*args)

    def ask(_):
        both.wait()
        return features(model, images, cache=tmp_path).x

    monkeypatch.setattr(module, "compute", slow)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(ask, range(2))

    assert len(calls) == 1 and torch.equal(one, other)


@pytest.mark.parametrize("what", ["weights", "buffer", "mean", "pictures", "placement", "version"])
def test_cache_knows_what_features_depend_on(what, images, tmp_path, monkeypatch):
    """Any of these makes other features, so another file."""
    model, placement = timm.create_model("test_resnet", in_chans=1), "pooled"
    features(model, images, cache=tmp_path)

    with torch.no_grad():
        if what == "weights":
            model.conv1[0].weight[0, 0, 0, 0] += 1e-4
        elif what == "buffer":
            model.bn1.running_mean[0] += 1e-4
        elif what == "mean":
            model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0.1, 0.1, 0.1)}
        elif what == "pictures":
            images = images.subset(range(39))
        elif what == "placement":
            placement = "layer1.0"
        elif what == "version":
            monkeypatch.setattr(module, "versions", lambda: {"timm": "another"})
    features(model, images, placement=placement, cache=tmp_path)

    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_half_precision_is_kept_apart(model, images):
    """What a GPU computed under autocast is not given out for the CPU's features."""
    keys = {module.cache_key(model, images, "pooled", device) for device in ("cpu", None, "cuda")}

    assert len(keys) == 2


def test_damaged_cache_is_computed_again(model, images, tmp_path):
    first = features(model, images, cache=tmp_path).x.clone()  # no longer mapped to the file
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(b"not what was written")

    assert torch.equal(features(model, images, cache=tmp_path).x, first)


def test_interrupted_write_leaves_no_cache(model, images, tmp_path, monkeypatch):
    """A file that is there is whole: what was cut short is not taken for features."""

    def interrupted(tensors, path, metadata):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        features(model, images, cache=tmp_path)
    monkeypatch.undo()

    assert not list(tmp_path.glob("*.safetensors"))
    assert torch.allclose(
        features(model, images, cache=tmp_path).x, by_hand(model, images), atol=1e-5
    )


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # timm leaves files to the collector
def test_any_data_set_that_timm_takes(tmp_path):
    """A folder of pictures of several sizes goes through timm's loader, as the model says."""
    for i, (size, name) in enumerate([((40, 30), "a"), ((25, 70), "b"), ((64, 64), "a")]):
        (tmp_path / name).mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    folder = timm.data.create_dataset("", tmp_path)
    model = timm.create_model("test_resnet").eval()

    found = features(model, folder, batch_size=2)

    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**config)
    with torch.no_grad():
        rows = [
            model.forward_head(model.forward_features(transform(picture)[None]), pre_logits=True)
            for picture, _ in timm.data.create_dataset("", tmp_path)
        ]
    assert torch.allclose(found.x, torch.cat(rows), atol=1e-4)
    assert found.y.tolist() == [0, 0, 1]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("change", [{"crop_pct": 0.8}, {"interpolation": "bicubic"}])
def test_named_sets_are_cropped_and_resized_as_the_model_says(change, channels, images):
    """As timm's own transform does it, picture by picture; and the set is left as it was."""
    overlay = {"input_size": (channels, 32, 32), "crop_pct": 1.0, "interpolation": "bilinear"}
    model = timm.create_model("test_resnet", in_chans=channels, pretrained_cfg_overlay=overlay)
    plain = features(model, images).x
    model.pretrained_cfg = {**model.pretrained_cfg, **change}

    found = features(model, images, batch_size=16)

    transform = timm.data.create_transform(**module.data_config(model))
    mode = "L" if channels == 1 else "RGB"
    x = torch.stack([transform(images.picture(i).convert(mode)) for i in range(len(images))])
    with torch.no_grad():
        expected = model.eval().forward_head(model.forward_features(x), pre_logits=True)
    assert torch.allclose(found.x, expected, atol=1e-4)
    assert not torch.allclose(found.x, plain, atol=1e-2)
    assert images.transform is None and images.mode == "L"


def test_non_finite_features_are_refused(images):
    """A broken network is found here, not in a table of numbers."""
    model = timm.create_model("test_resnet", in_chans=1)
    with torch.no_grad():
        model.conv1[0].weight[0] = torch.nan
    with pytest.raises(ValueError, match="40 of 40 pictures have features that are not finite"):
        features(model, images)


def test_no_pictures_are_refused(model, images):
    with pytest.raises(ValueError, match=r"no pictures.*the train split of made is empty"):
        features(model, images.subset([]))


def test_subset_keeps_classes():
    """A class may have no picture left; its name and index stay."""
    all_three = Features(torch.arange(6.0).view(3, 2), torch.tensor([0, 1, 2]), tuple("abc"))

    part = all_three.subset(torch.tensor([2]))

    assert part.classes == ("a", "b", "c")
    assert part.y.tolist() == [2]


@pytest.fixture
def run_folder(model, tmp_path):
    """What a training run leaves: a checkpoint, its arguments, and an export for timm."""
    folder = tmp_path / "run"
    args = {"model": "test_resnet", "num_classes": 4, "in_chans": 1}
    saver = CheckpointSaver(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        args=module.argparse.Namespace(**args),
        checkpoint_dir=str(tmp_path),
        recovery_dir=str(tmp_path),
    )
    saver.save_checkpoint(0, metric=1.0)
    config = {key: model.pretrained_cfg[key] for key in ("input_size", "mean", "std")}
    save_for_hf(
        model, folder, model_args={"in_chans": 1}, data_config=config, safe_serialization=True
    )
    return folder


def test_models_load_from_wherever_they_are(model, run_folder):
    """Folder, local-dir:, exported file and bare training checkpoint hold the same network."""
    sources = [
        run_folder,
        f"local-dir:{run_folder}",
        run_folder / "model.safetensors",
        run_folder.parent / "last.pth.tar",
    ]
    for source in sources:
        loaded = load_model(source)
        assert weights_sha256(loaded) == weights_sha256(model), source
        assert not loaded.training
    assert module.data_config(load_model(run_folder))["mean"] == (0.3,)


@pytest.mark.parametrize("stored", ["namespace", "a dictionary"])
def test_a_checkpoint_without_an_export_wants_pictures_as_its_run_had_them(tmp_path, stored):
    """A run that was stopped has no config.json; its batch norm, too, is what it computes."""
    network = timm.create_model("test_efficientnet", num_classes=4, in_chans=1, bn_eps=0.1)
    args = {
        "model": "test_efficientnet",
        "num_classes": 4,
        "input_size": [1, 28, 28],
        "bn_eps": 0.1,
    }
    args |= {"mean": [0.25], "std": [0.5], "crop_pct": 1.0, "interpolation": "bilinear"}
    kept = module.argparse.Namespace(**args) if stored == "namespace" else args
    path = tmp_path / "checkpoint-1.pth.tar"
    torch.save({"state_dict": network.state_dict(), "args": kept}, path)

    loaded, config = load_model(path), module.data_config(load_model(path))
    x = torch.rand(2, 1, 28, 28)
    assert torch.equal(loaded(x), network.eval()(x))
    assert (config["input_size"], config["mean"], config["std"]) == ((1, 28, 28), (0.25,), (0.5,))
    assert (config["crop_pct"], config["interpolation"]) == (1.0, "bilinear")


@pytest.mark.parametrize("content", [b"# Read me", torch.ones(3), {"a": [b"1", Path]}])
def test_what_is_no_checkpoint_is_said(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match=r"weights\.pth (is not a whole|holds a Tensor, no train)"):
        load_model(path)


def test_random_weights_have_a_name():
    """Always the same ones, whatever was drawn before, which they do not disturb."""
    state = torch.get_rng_state()
    first = load_model("random:test_resnet")
    assert torch.equal(torch.get_rng_state(), state) and not first.training
    torch.rand(1)
    assert weights_sha256(load_model("random:test_resnet")) == weights_sha256(first)
    with pytest.raises(LookupError, match=r"no architecture 'resnt18'.*Closest: resnet18"):
        load_model("random:resnt18")


def test_checkpoint_of_another_architecture_is_named(model, tmp_path):
    """The shapes differ, and the message says in which file."""
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    config = {"architecture": "test_efficientnet", "num_classes": 4, "pretrained_cfg": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))

    with pytest.raises(ValueError, match=r"model\.safetensors does not fit EfficientNet"):
        load_model(path)


@pytest.mark.parametrize(
    "name, message",
    [
        ("resnet81", "Closest: resnet18"),
        ("resnet18.vcr_nothing", "no weights are called.*resnet18.a1_in1k"),
        ("no/such/checkpoint.pth", "no model and no file"),
    ],
)
def test_names_without_weights_are_answered(name, message):
    """With what there is instead."""
    with pytest.raises(LookupError, match=message):
        load_model(name)


def test_bare_weights_say_what_is_missing(model, tmp_path):
    """A state dict alone does not say which network it is of."""
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), path)

    with pytest.raises(ValueError, match=r"does not say of which architecture.*config\.json"):
        load_model(path)


def test_folder_without_a_model_is_answered(tmp_path):
    with pytest.raises(LookupError, match=r"holds no config\.json"):
        load_model(tmp_path)


class Repository(BaseHTTPRequestHandler):
    """The files of one folder as a Hub's someone/net, at one commit."""

    folder: Path

    def do_HEAD(self) -> None:
        self.send(body=False)

    def do_GET(self) -> None:
        self.send(body=True)

    def send(self, body: bool) -> None:
        start, _, name = self.path.partition("/resolve/main/")
        path = self.folder / name
        if start != "/someone/net" or not path.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if name else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_) -> None:
        """Say nothing."""


def test_a_repository_of_the_hub_is_loaded_by_its_name(model, tmp_path):
    """hf-hub:owner/name gives the same network, from a Hub on this machine; one that is not there
    is said so in a line."""
    save_for_hf(model, tmp_path / "net", safe_serialization=True)
    handler = type("Handler", (Repository,), {"folder": tmp_path / "net"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    code = (
        "from vcr_zoo.features import load_model, weights_sha256\n"
        "print(weights_sha256(load_model('hf-hub:someone/net')))\n"
        "try:\n    load_model('hf-hub:someone/other')\n"
        "except (OSError, LookupError, ValueError) as error:\n    print('refused', error)"
    )
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"} | own,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        server.shutdown()
        server.server_close()

    assert done.returncode == 0, done.stderr
    found, refused, *_ = done.stdout.splitlines()
    assert found == weights_sha256(model) and refused.startswith("refused")


def test_a_baseline_is_loaded_by_its_name(monkeypatch):
    """From its package, not from the Hub."""
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    monkeypatch.setattr(module, "baseline", {"tf_efficientnet_lite0": state}.__getitem__)
    loaded = load_model("tf_efficientnet_lite0")

    assert not loaded.training
    assert all(value.equal(state[name]) for name, value in loaded.state_dict().items())
