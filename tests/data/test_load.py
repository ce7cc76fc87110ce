"""Parts, levels and names: what `load` gives, and what it refuses."""

import pickle

import numpy as np
import pytest
import torch
from timm.data import create_loader

from vcr_zoo.data import get, load, load_test


def test_parts_are_disjoint_and_together_everything(files):
    """The validation part is cut from the official train part; the test part stays."""
    train, validation, test = load("fmnist", folder=files), load("fmnist", "validation"), None
    test = load_test("fmnist")
    assert len(train) + len(validation) == 200 and len(test) == 50 and len(validation) > 5
    assert not set(train.groups) & set(validation.groups)
    both = load("fmnist", "train+validation")
    assert len(both) == 200 and set(both.groups) == set(train.groups) | set(validation.groups)


def test_levels_share_pictures(files):
    """The coarse label is a function of the fine one."""
    fine, coarse = load("fmnist", folder=files), load("fmnist", level="coarse")
    assert (fine.x == coarse.x).all() and coarse.classes == ("tops", "trousers", "footwear", "bags")
    assert (np.array([0, 1, 0, 0, 0, 2, 0, 2, 3, 2])[fine.y] == coarse.y).all()
    assert fine.y.dtype == coarse.y.dtype == np.int64


def test_fingerprints_name_content_part_level_and_subset(files):
    """Equal for equal pictures and labels, and for nothing else."""
    images = load("fmnist", folder=files)
    prints = {
        images.fingerprint,
        load("fmnist", level="coarse").fingerprint,
        load("fmnist", "validation").fingerprint,
        load_test("fmnist").fingerprint,
        images.subset([0, 1]).fingerprint,
        images.subset([1, 0]).fingerprint,
    }
    assert len(prints) == 6
    assert load("fmnist").fingerprint == images.fingerprint
    assert images.subset(np.arange(len(images)) < 2).fingerprint in prints


def test_pictures_are_pil_s_and_labels_integers(files):
    """Mode "L" for gray, "RGB" on request, and a transform if one is set."""
    images = load("fmnist", folder=files)
    picture, label = images[3]
    assert picture.mode == "L" and (np.asarray(picture) == images.x[3, ..., 0]).all()
    assert type(label) is int and label == images.y[3]
    images.mode = "RGB"
    images.transform = lambda picture: picture.mode
    assert images[0][0] == images.subset([0])[0][0] == "RGB"


def test_timm_s_loader_takes_them_as_they_are(files):
    """create_loader sets the transform and collates; nothing of ours is needed."""
    images = load("fmnist", folder=files)
    options = dict(input_size=(1, 32, 32), mean=(0.5,), std=(0.5,), use_prefetcher=False)
    for training in (True, False):
        loader = create_loader(images, batch_size=8, is_training=training, num_workers=0, **options)
        x, y = next(iter(loader))
        assert x.shape == (8, 1, 32, 32) and y.dtype == torch.int64


def test_a_long_tail_thins_train_only(files):
    """First class whole, last a tenth of it; the test part as balanced as ever."""
    thin = load("fmnist_lt10", folder=files)
    sizes, whole = np.bincount(thin.y), np.bincount(load("fmnist").y)
    assert sizes[0] == whole[0] and sizes[-1] == round(whole.max() / 10)
    assert set(thin.groups) < set(load("fmnist").groups)
    assert len(load_test("fmnist_lt10")) == 50


def test_the_test_part_is_not_load_s():
    """Selecting code cannot reach it by a string that came from somewhere."""
    with pytest.raises(ValueError, match="load_test"):
        load("fmnist", "test")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("fmnst",), "Closest: fmnist"),
        (("fmnist", "train", "middle"), "it has fine, coarse"),
        (("fmnist", "val"), "train, validation"),
    ],
)
def test_wrong_names_are_refused_with_the_right_ones(arguments, message):
    """Nothing is fetched for a request that cannot be met."""
    with pytest.raises((LookupError, ValueError), match=message):
        load(*arguments)


def test_pictures_whose_name_says_where_they_lie_take_no_folder(tmp_path):
    with pytest.raises(ValueError, match="leave --folder out"):
        get(f"folder/{tmp_path}", tmp_path)


def test_of_a_mistyped_path_the_folder_beside_it_is_meant(tmp_path):
    """And no data set, however like its name is."""
    (tmp_path / "pictures").mkdir()
    with pytest.raises(LookupError, match=rf"Closest: {tmp_path}/pictures\. `vcr-zoo data list`"):
        load(f"{tmp_path}/picture@32")
    with pytest.raises(LookupError, match="pictures@x: expected a number of pixels after @"):
        load(f"{tmp_path}/pictures@x")
    with pytest.raises(LookupError, match=r"and no folder\. `vcr-zoo data list`"):
        load(f"{tmp_path}/nothing/fmnist")


def test_workers_get_the_map_and_not_the_pictures(files):
    """Pickled for a process that is started afresh, Images stay small; subsets go along."""
    images = load("fmnist", folder=files)
    sent = pickle.dumps(images)
    again = pickle.loads(sent)
    assert images.x.nbytes > 10 * (len(sent) - images.groups.nbytes - images.y.nbytes)
    assert (again.x == images.x).all() and again.fingerprint == images.fingerprint
    both = load("fmnist", "train+validation")
    for some in (images.subset([3, 1]), both, both.subset(np.arange(190, 200))):
        sent = pickle.dumps(some)
        assert (np.asarray(pickle.loads(sent).x) == np.asarray(some.x)).all()
        assert len(sent) < images.x.nbytes / 4


def test_subsets_and_joined_parts_are_read_when_asked_for(files):
    """Sets of 20 GB are joined and thinned: what is kept is an index into the maps."""
    train, validation = load("fmnist", folder=files), load("fmnist", "validation")
    both = load("fmnist", "train+validation")
    whole = np.concatenate([train.x, validation.x])
    chosen = np.array([199, 3, 180, 3])
    some = both.subset(chosen)

    assert all(isinstance(part, np.memmap) for part in (*both.x.parts, *some.x.parts))
    assert (np.asarray(both.x) == whole).all() and both.x.nbytes == whole.nbytes
    assert (both.x[170:190] == whole[170:190]).all() and (both.x[-1] == whole[-1]).all()
    assert (some.x[np.array([0, 2])] == whole[chosen[[0, 2]]]).all()
    assert (np.asarray(some.subset([True, False, False, True]).x) == whole[chosen[[0, 3]]]).all()
    assert (np.asarray(some.picture(0)) == whole[199, ..., 0]).all()
    assert some.y.tolist() == np.concatenate([train.y, validation.y])[chosen].tolist()
    thin = load("fmnist_lt10")
    assert isinstance(thin.x.parts[0], np.memmap) and len(thin.x) == len(thin.y) < len(train)
