"""What comes from the Hub is looked at before it is used; what is hostile is refused in a line."""

import functools
import json
import os
import pickle
import re
import struct
import subprocess
import sys
from dataclasses import replace

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save

from vcr_zoo import remote, zoo
from vcr_zoo.cli import main
from vcr_zoo.hub.pull import pull
from vcr_zoo.hub.release import config_of, weight_files

from .clients import TOKEN

VCR, REPO = "test_resnet.vcr_fmnist4", "org/test_resnet.vcr_fmnist4"


@pytest.fixture(scope="module")
def files():
    """The two files of a packaged network, as they are published."""
    entry = zoo.manifest()[VCR]
    return weight_files(load_file(entry.file), config_of(entry))


@pytest.fixture
def get(hub, tmp_path):
    def get(name=REPO, to=tmp_path / "to"):
        return pull(name, to, endpoint=hub.url)

    return get


@pytest.fixture
def on_hub(hub, files, monkeypatch):
    """A name whose weights are on the Hub alone, pinned by commit and sha256."""
    commit = hub.put(REPO, files)
    monkeypatch.setattr(zoo, "download", functools.partial(remote.download, endpoint=hub.url))
    entry = replace(zoo.manifest()[VCR], name="test_resnet.vcr_onhub", file=None, hub=REPO)
    entry = replace(entry, revision=commit)
    zoo.register({entry.name: entry})
    yield entry
    timm.models._registry._model_pretrained_cfgs.pop(entry.name, None)
    timm.models._registry._model_has_pretrained.discard(entry.name)
    cfg = zoo.default_cfg("test_resnet")
    cfg.cfgs.pop("vcr_onhub")
    cfg.tags.remove("vcr_onhub")


def test_a_file_is_no_folder_to_copy_into(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(FileExistsError, match="mine is a file"):
        pull("test_resnet.vcr_fmnist4", tmp_path / "mine")


def test_pulled_files_load_with_timm(get, hub, files):
    hub.put(REPO, files)
    folder = get()
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)

    assert torch.equal(model.fc.weight, timm.create_model(VCR, pretrained=True).fc.weight)


def test_a_packaged_name_is_pulled_without_the_hub(get, hub, files):
    folder = get(VCR)

    assert hub.requests == []
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == files


def test_plain_timm_names_load_pinned_weights_from_the_hub(on_hub, hub, files):
    """The pinned commit, not the branch: a later push changes nothing."""
    hub.put(REPO, {"model.safetensors": b"something else"})
    model = timm.create_model(on_hub.name, pretrained=True)
    kept = len(hub.requests)
    again = timm.create_model(on_hub.name, pretrained=True, num_classes=10)

    assert torch.equal(model.fc.weight, timm.create_model(VCR, pretrained=True).fc.weight)
    assert again.fc.out_features == 10 and len(hub.requests) == kept  # from the cache


def test_a_folder_whose_config_has_the_tag_of_a_name_loads_its_own_weights(
    on_hub, hub, files, tmp_path
):
    """A run by that name's recipe, or what was fine-tuned from it, and not what the Hub has."""
    folder = tmp_path / "run"
    folder.mkdir()
    config = json.loads(files["config.json"])
    config["pretrained_cfg"]["tag"] = on_hub.name.partition(".")[2]
    weights = {
        k: v + 1 if k == "fc.bias" else v for k, v in load_file(zoo.manifest()[VCR].file).items()
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(save(weights))
    asked = len(hub.requests)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)

    assert len(hub.requests) == asked
    assert torch.equal(model.fc.bias, weights["fc.bias"].float())


def test_weights_whose_sha256_is_wrong_are_refused_before_a_tensor_is_used(on_hub, hub, files):
    commit = hub.put(REPO, {"model.safetensors": files["model.safetensors"][:-1] + b"!"})
    zoo.register({on_hub.name: replace(on_hub, revision=commit)})

    with pytest.raises(ValueError, match=r"not what was published.*sha256.*load it again"):
        timm.create_model(on_hub.name, pretrained=True)


def test_offline_what_is_cached_loads_and_what_is_not_is_said(on_hub, hub, files, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="HF_HUB_OFFLINE is set and it is not in the cache"):
        timm.create_model(on_hub.name, pretrained=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    timm.create_model(on_hub.name, pretrained=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert timm.create_model(on_hub.name, pretrained=True) is not None


@pytest.mark.parametrize(
    "settings, token, words",
    [
        ({"private": True}, None, "set HF_TOKEN if it is private"),
        ({"private": True}, "hf_stranger0000", "this HF_TOKEN may not read it"),
        ({"gated": True}, None, "gated: ask for access"),
        ({"gated": True}, "hf_stranger0000", "gated: ask for access"),
        ({}, "hf_wrong0000", "no such repository, or|refused .401."),
    ],
)
def test_who_may_not_read_is_told_what_to_do(get, hub, files, monkeypatch, settings, token, words):
    hub.put(REPO, files, **settings)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(OSError, match=words) as error:
        get()
    assert not token or token not in str(error.value)


@pytest.mark.parametrize("settings", [{"private": True}, {"gated": True}])
def test_who_may_read_does(get, hub, files, monkeypatch, settings):
    hub.put(REPO, files, **settings)
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    assert (get() / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_what_is_not_there_is_said(get, hub, files):
    with pytest.raises(OSError, match="no such repository"):
        get("org/nothing")
    hub.put(REPO, {"config.json": files["config.json"], "pytorch_model.bin": pickle.dumps({})})
    with pytest.raises(OSError, match=r"model\.safetensors.*no such file"):
        get()
    with pytest.raises(OSError, match="no such revision"):
        get(f"{REPO}@{'0' * 40}")


def header(fields: dict, data: bytes = b"") -> bytes:
    text = json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(begin: int, end: int, n: int = 4) -> dict:
    return {"dtype": "F32", "shape": [n], "data_offsets": [begin, end]}


class Executed:
    """Pickled, this makes a folder when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


HOSTILE = {
    "pickle": pickle.dumps({"w": Executed()}),
    "length of its header": struct.pack("<Q", 2**62) + b"{}",
    "overlap": header({"a": tensor(0, 16), "b": tensor(8, 24)}, bytes(24)),
    "beyond its end": header({"a": tensor(0, 16)}, bytes(4)),
    "shape that lies": header({"a": tensor(0, 16, n=400)}, bytes(16)),
    "a hole": header({"a": tensor(0, 16), "b": tensor(32, 48)}, bytes(48)),
    "cut": b"\x10",
    "empty": b"",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_what_is_not_safetensors_is_refused_unread(get, hub, files, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hub.put(REPO, {**files, "model.safetensors": content})

    with pytest.raises((ValueError, OSError), match="not a whole safetensors file"):
        get()
    assert not (tmp_path / "to").exists() and not (tmp_path / "executed").exists()


def config(files, **changes) -> bytes:
    return json.dumps({**json.loads(files["config.json"]), **changes}).encode()


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"architecture": "resnet18x"}, LookupError, "which timm has not.*Closest: resnet18"),
        ({"architecture": "hf-hub:evil/net"}, LookupError, "which timm has not"),
        ({"architecture": ["a"]}, LookupError, "which timm has not"),
        ({"architecture": "test_vit"}, ValueError, "does not fit test_vit"),
        ({"model_args": {"num_classes": 4, "evil": 1}}, ValueError, "arguments do not fit"),
        (
            {"pretrained_cfg": {"file": "/etc/passwd"}},
            ValueError,
            "would load other files, by file",
        ),
        ({"pretrained_cfg": {"custom_load": True}}, ValueError, "would load other files"),
        ({"pretrained_cfg": 3}, ValueError, "not a timm configuration"),
        ({"pretrained_cfg": {"mean": "x"}}, ValueError, "not a timm configuration"),
        ({"pretrained_cfg": {"input_size": [3, -1, 9]}}, ValueError, "not a timm configuration"),
        ({"hf_hub_filename": "pytorch_model.bin"}, ValueError, "by hf_hub_filename"),
        ({"url": "https://x"}, ValueError, "would load other files, by url"),
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, ValueError, "args checkpoint_path"),
        ({"model_args": {"cache_dir": "/tmp"}}, ValueError, "model_args cache_dir"),
        ({"model_args": {"layers": [1, 10**9, 1, 1]}}, ValueError, "asks for more than"),
        ({"model_args": {"num_classes": 10**8}}, ValueError, "asks for more than"),
        ({"model_args": {"act_layer": "nope"}}, ValueError, "arguments do not fit"),
    ],
)
def test_a_configuration_that_timm_should_not_be_given_is_refused(
    get, hub, files, tmp_path, changes, error, words
):
    hub.put(REPO, {**files, "config.json": config(files, **changes)})

    with pytest.raises(error, match=words):
        get()
    assert not (tmp_path / "to").exists()


def test_a_configuration_that_is_no_json_object_is_refused(get, hub, files):
    for content in (b"[1]", b"\xff{", b""):
        hub.put(REPO, {**files, "config.json": content})
        with pytest.raises(ValueError, match="not a timm configuration"):
            get()


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "org/..", "org/a@../../x", "org/a/b", "/etc/x"]
)
def test_names_that_leave_the_cache_are_refused(get, hub, name):
    with pytest.raises((ValueError, LookupError)):
        get(name)
    assert hub.requests == []


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"file": "../../x.safetensors"}, "not beside the manifest"),
        ({"file": "/etc/passwd"}, "not beside the manifest"),
        ({"hub": "../x", "file": None}, "is not owner/name"),
        ({"hub": "org/x", "file": None, "revision": "main"}, "not a commit"),
        ({"file": None}, "no file, and no hub"),
        ({"hub": "org/x", "file": None}, "no file, and no revision"),
    ],
)
def test_a_manifest_cannot_point_elsewhere(tmp_path, fields, words):
    path = tmp_path / "manifest.yaml"
    known = zoo.fields_by_name(zoo.MANIFEST)["test_resnet.base_fmnist4"]
    known = {k: v for k, v in known.items() if k not in ("hub", "revision")}
    with pytest.raises(ValueError, match=words):
        zoo.record("test_resnet.vcr_x", {**known, **fields}, path)


def test_files_that_are_there_are_not_overwritten(get, hub, files, tmp_path):
    hub.put(REPO, files)
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "config.json").write_text("mine")

    with pytest.raises(FileExistsError, match="choose another folder"):
        get()
    assert [p.name for p in (tmp_path / "to").iterdir()] == ["config.json"]
    assert (tmp_path / "to" / "config.json").read_text() == "mine"


def test_a_cut_download_is_not_taken_for_the_file(get, hub, files, tmp_path, waits):
    from .loopback import Fault

    hub.put(REPO, files)
    hub.fault = lambda n, method, path: (
        Fault(cut="half") if method == "GET" and "safetensors" in path else None
    )
    with pytest.raises(OSError, match=r"could not do it|no such"):
        get()
    assert not (tmp_path / "to").exists()
    hub.fault = lambda *_: None
    assert (get() / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_packaged_weights_need_no_network():
    """In a process that refuses every socket."""
    code = (
        "import socket\n"
        "def refuse(*_, **__): raise AssertionError('a socket was opened')\n"
        "socket.socket.connect = socket.socket.connect_ex = socket.create_connection = refuse\n"
        "socket.getaddrinfo = refuse\n"
        "import timm, vcr_zoo\n"
        "names = timm.list_models('*.vcr_*', pretrained=True)\n"
        "print([timm.create_model(n, pretrained=True).num_classes for n in names])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "4" in done.stdout


def test_the_command_prints_where_the_weights_are(capsys, tmp_path):
    assert main(["pull", VCR, "--to", str(tmp_path / "to")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "to")
    assert main(["pull", "test_resnet.vcr_fmnist5"]) == 2
    assert re.search(r"Closest: .*test_resnet\.vcr_fmnist4\b", capsys.readouterr().err)


def test_hashes_of_the_small_helper_are_those_of_safetensors():
    """The hostile files above differ from a good one in what they are named for alone."""
    good = header({"a": tensor(0, 16)}, bytes(16))
    assert set(load_file_bytes(good)) == {"a"} and load_file_bytes(save({"a": torch.zeros(4)}))


def load_file_bytes(content: bytes):
    from safetensors.torch import load

    return load(content)
