"""Our weights behave as timm's own do, and timm's own stay as they were."""

import hashlib
import json
import re
import subprocess
import sys
import warnings

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file

import vcr_zoo
from vcr_zoo import zoo
from vcr_zoo.cli import main
from vcr_zoo.training.options import as_yaml
from vcr_zoo.training.settle import settled
from vcr_zoo.transfer.concat import concat
from vcr_zoo.transfer.depth import untrained

ALL_OF_TIMM = """
import json, sys, timm
if "with" in sys.argv: import vcr_zoo
from timm.models import get_pretrained_cfg, is_model_pretrained, model_entrypoint
ours = [] if "vcr_zoo" not in sys.modules else [*vcr_zoo.zoo.manifest(), "vcr_concat"]
names = [n for n in timm.list_models() + timm.list_models(pretrained=True) if n not in ours]
modules = {m: sorted(timm.list_models(module=m)) for m in timm.list_modules() if m != "concat"}
cfgs = {n: [repr(get_pretrained_cfg(n)), is_model_pretrained(n)] for n in names}
functions = {n: [(f := model_entrypoint(n)).__name__, f.__module__] for n in names if "." not in n}
print(json.dumps([names, modules, cfgs, functions]))
"""


def run(code, *arguments):
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def entries(tmp_path):
    """A manifest of our own, with one pair of small networks."""
    fields = {}
    for tag in ("vcr_testing", "base_testing"):
        torch.manual_seed(len(tag))
        model = timm.create_model("test_resnet", num_classes=4)
        file = tmp_path / f"test_resnet.{tag}.safetensors"
        save_file({k: v.half() if v.ndim else v for k, v in model.state_dict().items()}, file)
        fields[f"test_resnet.{tag}"] = dict(
            file=file.name,
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            license="mit",
            num_classes=4,
            input_size=[3, 32, 32],
            mean=[0.25] * 3,
            std=[0.5] * 3,
            label_names=["tops", "trousers", "footwear", "bags"],
        )
    fields["test_resnet.vcr_testing"]["control"] = "test_resnet.base_testing"
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump(fields))
    entries = zoo.manifest(path)
    zoo.register(entries)
    yield entries
    unregister("test_resnet", entries)


def unregister(architecture, entries):
    """Take the test's tags out of timm again."""
    entrypoint = timm.models.model_entrypoint(architecture)
    known = zoo.default_cfg(architecture)
    for tag in (name.split(".")[1] for name in entries):
        known.tags.remove(tag)
        del known.cfgs[tag], entrypoint.vcr_entries[tag]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        timm.models.register_model(entrypoint)


def test_every_name_and_configuration_of_timm_is_unchanged():
    """Importing the zoo adds names and does nothing else, over all of timm."""
    assert json.loads(run(ALL_OF_TIMM)) == json.loads(run(ALL_OF_TIMM, "with"))


def test_packaged_weights_are_listed_and_load():
    """What the README promises to whoever installs the package."""
    names = timm.list_models("*.vcr_*", pretrained=True)

    assert set(names) == {name for name in zoo.manifest() if ".vcr_" in name} and names
    for name, entry in zoo.manifest().items():
        model = timm.create_model(name, pretrained=True)
        stored = load_file(entry.file)
        assert stored.keys() == model.state_dict().keys()
        assert all(torch.equal(stored[k].to(v.dtype), v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", ["test_vit.vcr_fmnist", "test_resnet.vcr_fmnist"])
def test_a_network_knows_what_it_was_built_with(name, tmp_path):
    """Also what its weights settle, as a patch size: saved, joined or begun anew it is the same."""
    model = timm.create_model(name, pretrained=True)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert {k: v.shape for k, v in untrained(model, 0).state_dict().items()} == shapes
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert all(value.equal(again.state_dict()[k]) for k, value in model.state_dict().items())
    concat([model, again])
    assert timm.create_model(name, num_classes=3)._model_args["num_classes"] == 3


def test_every_packaged_network_has_its_control():
    for entry in zoo.manifest().values():
        assert (".base_" in entry.name) == (entry.control is None)


def test_a_registered_name_behaves_as_timms_own(entries):
    name = "test_resnet.vcr_testing"

    assert name in timm.list_models("*.vcr_*", pretrained=True)
    assert timm.models.is_model_pretrained(name)
    cfg = timm.get_pretrained_cfg(name)
    assert (cfg.num_classes, cfg.input_size, cfg.license) == (4, (3, 32, 32), "mit")
    data = timm.data.resolve_model_data_config(timm.create_model(name, pretrained=True))
    assert data["input_size"] == (3, 32, 32) and data["mean"] == (0.25, 0.25, 0.25)
    assert timm.get_pretrained_cfg("test_resnet").tag == "r160_in1k"


def test_a_registered_name_adapts_to_a_users_task(entries):
    stored = load_file(entries["test_resnet.vcr_testing"].file)

    def create(**kwargs):
        return timm.create_model("test_resnet.vcr_testing", pretrained=True, **kwargs)

    assert create(num_classes=10).fc.out_features == 10
    gray = create(in_chans=1)
    summed = stored["conv1.0.weight"].float().sum(dim=1, keepdim=True)
    torch.testing.assert_close(gray.conv1[0].weight, summed, rtol=0, atol=1e-3)
    assert len(create(features_only=True)(torch.randn(2, 3, 32, 32))) == 5
    assert create(num_classes=0)(torch.randn(2, 3, 32, 32)).shape == (2, 96)


def test_the_two_of_a_pair_are_different_weights(entries):
    a, b = (timm.create_model(name, pretrained=True).fc.weight for name in entries)

    assert not torch.equal(a, b)


def test_registering_twice_changes_nothing(entries):
    zoo.register(entries)

    assert timm.list_models("test_resnet.*_testing", pretrained=True) == sorted(entries)
    assert timm.create_model("test_resnet.vcr_testing", pretrained=True) is not None


def test_changed_weights_are_refused(entries):
    """timm checks no hash on files; we do, before a tensor is used."""
    file = entries["test_resnet.vcr_testing"].file
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)

    with pytest.raises(ValueError, match=r"not what was published.*sha256"):
        timm.create_model("test_resnet.vcr_testing", pretrained=True)
    assert timm.create_model("test_resnet.vcr_testing", pretrained=False) is not None
    assert timm.create_model("test_resnet.base_testing", pretrained=True) is not None


def test_changed_weights_are_refused_whichever_way_the_configuration_comes(entries):
    cfg = timm.get_pretrained_cfg("test_resnet.vcr_testing")
    entries["test_resnet.vcr_testing"].file.write_bytes(b"damaged")

    for given in (cfg, cfg.to_dict(), "vcr_testing"):
        with pytest.raises(ValueError, match="not what was published"):
            timm.create_model("test_resnet", pretrained=True, pretrained_cfg=given)


def test_several_entries_are_registered_together_or_not_at_all(entries):
    good = zoo.replace(entries["test_resnet.base_testing"], name="test_resnet.vcr_good")
    bad = zoo.replace(good, name="resnet81.vcr_bad")

    with pytest.raises(LookupError):
        zoo.register({good.name: good, bad.name: bad})
    assert "test_resnet.vcr_good" not in timm.list_pretrained()


def test_absent_weights_are_refused_unless_others_are_given(entries):
    entry = entries["test_resnet.vcr_testing"]
    elsewhere = entry.file.rename(entry.file.with_name("elsewhere.safetensors"))

    with pytest.raises(FileNotFoundError, match="reinstall vcr_zoo"):
        timm.create_model(entry.name, pretrained=True)
    overlay = dict(file=str(elsewhere))
    assert timm.create_model(entry.name, pretrained=True, pretrained_cfg_overlay=overlay)


def test_a_tag_of_timms_own_is_refused(entries):
    taken = {"resnet18.a1_in1k": entries["test_resnet.base_testing"]}
    taken = {n: zoo.replace(e, name=n) for n, e in taken.items()}

    with pytest.raises(ValueError, match=r"already has weights named resnet18\.a1_in1k"):
        zoo.register(taken)


def test_an_unknown_architecture_is_refused_with_close_ones(entries):
    entry = zoo.replace(entries["test_resnet.base_testing"], name="resnet81.vcr_x")

    with pytest.raises(LookupError, match=r"no architecture 'resnet81'.*Closest: resnet"):
        zoo.register({entry.name: entry})


@pytest.mark.parametrize(
    "name, words",
    [
        ("resnet81", r"no model 'resnet81'\. Closest: resnet"),
        ("resnet18.vcr_nothing", r"resnet18 has no weights 'vcr_nothing'.*a1_in1k"),
    ],
)
def test_wrong_names_are_refused_before_anything_starts(name, words):
    with pytest.raises(LookupError, match=words):
        zoo.check_name(name)
    zoo.check_name("resnet18.a1_in1k")
    zoo.check_name("hf-hub:someone/something")


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"file": "x"}, "a.b is not a complete entry.*missing"),
        ({"colour": "red"}, "unexpected keyword argument 'colour'"),
    ],
)
def test_an_incomplete_manifest_is_refused(tmp_path, fields, words):
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump({"a.b": fields}))

    with pytest.raises(ValueError, match=words):
        zoo.manifest(path)


def test_a_control_without_an_entry_is_refused(tmp_path):
    entry = dict(file="f", sha256="0", license="mit", num_classes=2, input_size=[3, 8, 8])
    entry |= dict(mean=[0.5], std=[0.5], control="a.base_x")
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump({"a.vcr_x": entry}))

    with pytest.raises(ValueError, match=r"control a\.base_x of a\.vcr_x has no entry"):
        zoo.manifest(path)


@pytest.fixture
def run_folder(tmp_path):
    """What a finished run leaves."""
    folder = tmp_path / "run"
    model = timm.create_model("test_resnet", num_classes=3)
    config = dict(label_names=["a", "b", "c"], pretrained_cfg=dict(tag="vcr_mine"))
    data = dict(input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3, crop_pct=1.0)
    timm.models.save_for_hf(
        model,
        folder,
        config,
        safe_serialization=True,
        data_config=data | dict(interpolation="bilinear"),
    )
    return folder, model


def test_a_packaged_run_is_the_run_rounded_to_half(run_folder, tmp_path):
    folder, model = run_folder
    path = tmp_path / "manifest.yaml"
    entry = zoo.package(folder, "test_resnet.vcr_mine", license="mit", path=path)

    entry.verify()
    stored = load_file(entry.file)
    for key, value in model.state_dict().items():
        expected = value.half() if value.is_floating_point() else value
        assert torch.equal(stored[key], expected)
    assert (entry.num_classes, entry.label_names) == (3, ("a", "b", "c"))
    assert (entry.mean, entry.input_size) == ((0.5,) * 3, (3, 32, 32))


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("test_resnet", {"act_layer": "silu"}),
        ("test_resnet", {"global_pool": "max"}),
        ("test_vit", {"img_size": 64, "depth": 2}),
        ("test_vit", {"drop_rate": 0.5}),
    ],
)
def test_what_a_network_was_built_with_goes_along(name, arguments, tmp_path):
    """Or its name would stand for another function of the same weights."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, **arguments).eval()
    size = (3, 64, 64) if "img_size" in arguments else model.pretrained_cfg["input_size"]
    run = tmp_path / "run"
    data = dict(input_size=size, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear")
    timm.models.save_for_hf(model, run, {}, safe_serialization=True, data_config=data)
    path = tmp_path / "manifest.yaml"
    entry = zoo.package(run, f"{name}.base_own{len(arguments)}", license="mit", path=path)
    zoo.register({entry.name: zoo.manifest(path)[entry.name]})

    again = timm.create_model(entry.name, pretrained=True).eval()
    x = torch.randn(2, *size)
    torch.testing.assert_close(again(x), model.half().float()(x))
    assert ("drop_rate" in arguments) == (not entry.model_args)


def test_packaging_again_replaces_the_entry_and_keeps_the_others(run_folder, tmp_path):
    folder, _ = run_folder
    path = tmp_path / "manifest.yaml"
    zoo.package(folder, "test_resnet.base_mine", license="mit", path=path)
    for license in ("mit", "cc-by-4.0"):
        zoo.package(
            folder,
            "test_resnet.vcr_mine",
            license=license,
            control="test_resnet.base_mine",
            path=path,
        )
    entries = zoo.manifest(path)

    assert list(entries) == ["test_resnet.base_mine", "test_resnet.vcr_mine"]
    assert entries["test_resnet.vcr_mine"].license == "cc-by-4.0"


def test_damaged_weights_are_named(run_folder, tmp_path):
    folder, _ = run_folder
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{file} is not a whole safetensors file"):
        zoo.package(folder, "test_resnet.vcr_mine", license="mit", path=tmp_path / "m.yaml")


def test_what_cannot_be_packaged_is_refused(run_folder, tmp_path):
    folder, model = run_folder
    path = tmp_path / "manifest.yaml"

    with pytest.raises(ValueError, match=r"control test_resnet\.typo has no entry yet"):
        zoo.package(
            folder, "test_resnet.vcr_mine", license="mit", control="test_resnet.typo", path=path
        )
    with pytest.raises(ValueError, match=r"already has weights named test_resnet\.r160_in1k"):
        zoo.package(folder, "test_resnet.r160_in1k", license="mit", path=path)
    with pytest.raises(ValueError, match="needs a tag"):
        zoo.package(folder, "test_resnet", license="mit", path=path)
    with pytest.raises(FileNotFoundError, match="no finished run"):
        zoo.package(tmp_path, "test_resnet.vcr_mine", license="mit", path=path)
    with pytest.raises(ValueError, match="trained test_resnet, not the resnet18"):
        zoo.package(folder, "resnet18.vcr_mine", license="mit", path=path)
    model.fc.bias.data[0] = 1e6
    save_file(model.state_dict(), folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"fc\.bias has values that half precision cannot hold"):
        zoo.package(folder, "test_resnet.vcr_mine", license="mit", path=path)
    assert not path.exists() and not list(tmp_path.glob("*.safetensors"))


def test_packaging_again_keeps_the_old_weights_if_it_is_refused(run_folder, tmp_path):
    """A published file must go on matching its sha256."""
    folder, _ = run_folder
    path = tmp_path / "manifest.yaml"
    entry = zoo.package(folder, "test_resnet.base_mine", license="mit", path=path)
    config = json.loads((folder / "config.json").read_text())
    del config["pretrained_cfg"]["std"]
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(ValueError, match="says nothing of std"):
        zoo.package(folder, "test_resnet.base_mine", license="mit", path=path)
    entry.verify()


def test_builds_that_do_not_match_are_explained(tmp_path):
    """timm cannot be imported beside a torchvision built for another torch; say what to install."""
    (tmp_path / "timm.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    code = "import sys; sys.path.insert(0, sys.argv[1])\nimport vcr_zoo"
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )

    assert result.returncode == 1
    assert "not builds of one release" in result.stderr and "pip install" in result.stderr
    assert vcr_zoo.__version__


@pytest.mark.parametrize(
    "name, more, message",
    [
        ("test_resnet.vcr_fmnits4", ("mit",), "no recipe 'test_resnet.vcr_fmnits4'.*fmnist4"),
        ("test_resnet.vcr_fmnist4", ("CC BY 4.0",), "'CC BY 4.0' is no licence's identifier"),
        ("test_resnet.vcr_fmnist4", ("mit",), "has VCR: give its control, --control NAME"),
        ("test_resnet.vcr_fmnist", ("mit",), "was not trained with --recipe test_resnet.vcr_fm"),
    ],
)
def test_what_could_have_no_card_is_not_packaged(name, more, message, tmp_path, capsys):
    """One such entry would stand in the way of every other's card."""
    before = zoo.MANIFEST.read_bytes()
    line = ["package", str(tmp_path), name, "--license", *more]
    assert main(["package", str(tmp_path / "none"), *line[2:]]) == 2
    (tmp_path / "args.yaml").write_text(as_yaml(settled("test_resnet.vcr_fmnist4")))

    assert main(line) == 2
    lacking, refused = capsys.readouterr().err.strip().split("\n")
    assert re.search(message, refused)
    assert "no folder of a run" in lacking or "no recipe" in lacking
    assert zoo.MANIFEST.read_bytes() == before
