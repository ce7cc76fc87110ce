import csv

import numpy as np
import pytest
import torch

from vcr_zoo.diagnostics.during import During
from vcr_zoo.diagnostics.spectrum import correlation, effective_rank, spectrum
from vcr_zoo.placement import find
from vcr_zoo.training import main, parse, train

from ..training.conftest import draw_pictures
from .made import network


@pytest.fixture(scope="module")
def resnet():
    return network()


def batches(count=3, size=16):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, 3, 32, 32, generator=generator) for _ in range(count)]


def test_pooled_numbers_are_those_of_the_features(resnet):
    with torch.inference_mode(), During("pooled")(resnet) as found:
        for x in batches():
            resnet(x)
        features = [
            resnet.forward_head(resnet.forward_features(x), pre_logits=True) for x in batches()
        ]
    x = torch.cat(features).double()
    (name,) = {key.split(".", 1)[1] for key in found}

    assert found[f"deviation.{name}"] == pytest.approx(x.std(dim=0).mean().item(), rel=1e-6)
    assert found[f"effective_rank.{name}"] == pytest.approx(effective_rank(spectrum(x)), rel=1e-6)
    assert found[f"correlation.{name}"] == pytest.approx(correlation(x), rel=1e-6)


def test_only_the_first_pictures_are_looked_at(resnet):
    """What makes it cost nothing on large splits."""
    with torch.inference_mode(), During("blocks", first=20)(resnet) as few:
        for x in batches():
            resnet(x)
    with torch.inference_mode(), During("blocks")(resnet) as same:
        for x in torch.cat(batches())[:20].split(16):
            resnet(x)

    assert few.keys() == same.keys() and len(few) == 3 * len(find(resnet, "blocks"))
    np.testing.assert_allclose(list(few.values()), list(same.values()), rtol=1e-5)  # batch by batch


def test_nothing_stays_behind_and_outputs_are_untouched(resnet):
    (x,) = batches(1)
    with torch.inference_mode():
        before = resnet(x)
        with During("blocks,pooled")(resnet):
            during = resnet(x)

    assert torch.equal(before, during)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in resnet.modules())


def test_features_that_are_not_finite_do_not_stop_a_training(resnet):
    """The loss does, if it must; here the placement is left out."""
    with torch.inference_mode(), During("pooled")(resnet) as found:
        resnet(torch.full((4, 3, 32, 32), torch.nan))

    assert found == {}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same short run without and with --during."""
    folder = tmp_path_factory.mktemp("during")
    pictures = draw_pictures(folder / "pictures", classes=3, each=14)
    argv = [str(pictures), "--model", "test_resnet", "--num-classes", "3", "--epochs", "2"]
    argv += ["--input-size", "3", "32", "32", "--batch-size", "8", "--workers", "0"]
    argv += ["--device", "cpu", "--vcr-beta", "1", "--output", str(folder)]
    for name, more in (("plain", []), ("watched", ["--during"])):
        assert main([*argv, "--experiment", name, *more], during=During) == 0
    return folder, argv


quiet = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@quiet
def test_a_watched_training_is_the_same_training(runs):
    """To the bit: neither random numbers nor batch statistics are touched."""
    folder, _ = runs
    plain, watched = (folder / name / "model.safetensors" for name in ("plain", "watched"))

    assert plain.read_bytes() == watched.read_bytes()


@quiet
def test_every_epoch_has_its_columns(runs):
    """After timm's own, as VCR's terms are."""
    folder, _ = runs
    with (folder / "watched" / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0])

    assert len(rows) == 2
    for what in ("deviation", "correlation", "effective_rank"):
        assert all(1e-6 < float(row[f"eval_{what}.layer3.0"]) < 200 for row in rows)
    assert names.index("lr") < names.index("eval_deviation.layer1.0")


@quiet
def test_what_during_cannot_do_is_refused(runs, capsys):
    folder, argv = runs
    argv = [*argv, "--experiment", "other", "--during"]

    assert main([*argv, "--torchcompile"], during=During) == 2
    assert "--torchcompile" in capsys.readouterr().err
    assert main([*argv, "--val-split", ""], during=During) == 2
    assert "of which --val-split '' has none" in capsys.readouterr().err
    with pytest.raises(ValueError, match="train\\(args, during="):
        train(parse(argv))
    assert not (folder / "other").exists()
