import argparse
import copy
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from timm.data import resolve_data_config

from vcr_zoo.features import load_model
from vcr_zoo.training.checkpoint import LAST
from vcr_zoo.transfer.delta import Delta
from vcr_zoo.transfer.depth import Depth
from vcr_zoo.transfer.dr_tune import DRTune
from vcr_zoo.transfer.finetune import Finetuner, Settings, check, predict, settings_from
from vcr_zoo.transfer.method import Method

from .made import pictures
from .tuning import resnet, run_of, same, small, tuned, vit


@pytest.mark.parametrize("make", [resnet, vit])
def test_it_learns(make):
    """Three brightnesses of gray."""
    found = tuned(model=make(), settings=small(epochs=6, lr=1e-2, smoothing=0.0), n=60)

    assert found.validation_top1 > 0.9


def test_the_given_network_stays_as_it_is():
    model = resnet()
    before = copy.deepcopy(model)
    tuned(model=model)

    assert same(model, before)


def test_a_run_s_folder_is_a_network_of_timm(tmp_path):
    found = tuned(folder=tmp_path / "run")
    x = torch.randn(2, 1, 16, 16)

    model = timm.create_model(f"local-dir:{tmp_path / 'run'}", pretrained=True).eval()
    assert torch.equal(model(x), found.model(x))
    assert model.num_classes == 3 and tuple(model.pretrained_cfg["mean"]) == (0.3,)
    assert model.pretrained_cfg["label_names"] == ["dark", "middle", "light"]
    assert torch.equal(load_model(tmp_path / "run")(x), found.model(x))


@pytest.mark.parametrize("method", [Method, DRTune, Delta, lambda: Depth(2)])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, method):
    """To the bit, with averaged weights, momentum, schedule and the method's own state."""
    settings = small(epochs=3, ema=0.9, head_epochs=1)
    whole = tuned(method(), settings=settings)
    stopped = run_of(method(), settings=settings, folder=tmp_path)
    validate = stopped.validate

    def cut(loss):
        validate(loss)
        if stopped.epoch == 1:
            raise KeyboardInterrupt

    stopped.validate = cut
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    again = run_of(method(), settings=settings, folder=tmp_path)

    assert again.epoch == 1
    assert same(again.run().model, whole.model) and again.history == whole.history


def test_a_folder_with_another_run_is_refused_unless_overwritten(tmp_path):
    tuned(folder=tmp_path)
    other = small(lr=0.5)
    with pytest.raises(FileExistsError, match="other lr"):
        run_of(settings=other, folder=tmp_path)

    assert run_of(settings=other, folder=tmp_path, overwrite=True).epoch == 0


def test_files_of_anything_else_are_not_written_over(tmp_path):
    """Whether training left them, `pull`, or a project that has a config.json of its own."""
    found = {"pulled": "model.safetensors", "trained": LAST, "project": "config.json"}
    for name, file in found.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_bytes(b"theirs")
    torch.save({"model": {}, "args": argparse.Namespace()}, tmp_path / "trained" / LAST)
    for name, file in found.items():
        with pytest.raises(FileExistsError, match=f"{name}/{file} is of no run .* --overwrite"):
            run_of(folder=tmp_path / name)
    for name in ("pulled", "project"):
        assert (tmp_path / name / found[name]).read_bytes() == b"theirs"


def test_a_network_wants_pictures_as_it_learned_them(tmp_path):
    """Whole squares, whatever the network that it began with was shown."""
    model = resnet()
    model.pretrained_cfg |= {"crop_pct": 0.9, "crop_mode": "squash", "interpolation": "bicubic"}
    tuned(model=model, folder=tmp_path)
    config = resolve_data_config(model=load_model(tmp_path))
    found = [config[key] for key in ("crop_pct", "crop_mode", "interpolation")]
    assert found == [1.0, "center", "bilinear"]


def test_the_best_epoch_on_validation_is_kept():
    """A rate that destroys the network shows: the kept epoch is not the last."""
    found = tuned(settings=small(epochs=6, lr=3e-3))
    top = max(range(6), key=lambda e: (found.history[e]["top1"], -found.history[e]["log_loss"]))

    assert found.epoch == top and found.validation_top1 == found.history[top]["top1"]
    p, y = predict(found.model, pictures("validation", n=30), small())
    assert (p.argmax(1) == y).double().mean().item() == pytest.approx(found.validation_top1)


def test_early_stopping_stops():
    settings = small(epochs=30, lr=1e-9, patience=2)

    assert len(tuned(settings=settings).history) < 30


def test_the_head_learns_alone_at_first():
    model = resnet()
    found = tuned(model=model, settings=small(epochs=1, head_epochs=1))
    state = found.model.state_dict()

    assert found.history[0]["frozen"] == 5
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items() if "fc" not in k)


def test_rates_fall_from_head_to_stem_with_layer_decay():
    run = run_of(settings=small(layer_decay=0.5, head_lr=10.0))
    scale = {
        id(p): group["lr_scale"] for group in run.optimizer.param_groups for p in group["params"]
    }

    assert scale[id(run.model.fc.weight)] == 10
    assert scale[id(run.model.conv1[0].weight)] < scale[id(run.model.layer4[0].conv1.weight)] < 1


def test_vcr_regularizes_while_fine_tuning_and_leaves_no_taps():
    """The same run with and without ends elsewhere; what is frozen is not tapped."""
    plain, vcr = tuned(), tuned(settings=small(vcr_alpha=1.0, vcr_beta=1.0))
    run = run_of(Depth(2), settings=small(vcr_alpha=1.0, views=1, vcr_layers="blocks,pooled"))

    assert not same(plain.model, vcr.model)
    assert [str(p) for p in run.penalties.placements] == ["layer3.0", "layer4.0", "fc.input"]
    assert not any(module._forward_hooks for module in run.run().model.modules())


def test_half_precision_trains():
    found = tuned(settings=small(amp="bfloat16", epochs=4, lr=3e-3))

    assert found.history[-1]["train_loss"] < found.history[0]["train_loss"]


def test_no_validation_pictures_are_refused():
    with pytest.raises(ValueError, match="no validation pictures"):
        Finetuner(resnet(), pictures("train"), pictures("validation").subset([]))


def test_a_class_without_pictures_is_named():
    images = pictures("train")
    with pytest.raises(ValueError, match="no train picture of 'light'"):
        check(images.subset(np.flatnonzero(images.y != 2)), pictures("validation"))


def test_a_model_without_a_classifier_is_refused():
    parts = pictures("train"), pictures("validation")
    with pytest.raises(ValueError, match="no classifier to replace"):
        Finetuner(torch.nn.Conv2d(1, 2, 3), *parts, None, small(input_size=(1, 16, 16)))


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"epochs": 0}, "epochs"),
        ({"lr": 0.0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"opt": "adamww"}, "adamw"),
        ({"smoothing": 2.0}, "smoothing"),
        ({"amp": "half"}, "amp"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changed, said):
    with pytest.raises(ValueError, match=said):
        Settings(**changed)


def test_an_unknown_setting_is_refused_with_the_closest():
    with pytest.raises(LookupError, match="weight_decay"):
        settings_from({"weigth_decay": 0.1})
    assert settings_from({"lr": 0.1}) == replace(Settings(), lr=0.1)


def test_a_loss_that_is_no_number_stops_the_run():
    with pytest.raises(FloatingPointError, match="epoch 0, step"):
        tuned(settings=small(opt="sgd", lr=1e20))
