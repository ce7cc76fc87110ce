"""Every row of DATASETS keeps one contract; a newcomer is enrolled by having a row."""

import ast
from pathlib import Path

import numpy as np
import pytest

import vcr_zoo
from vcr_zoo.data import DATASETS, cache, load, load_test
from vcr_zoo.data.emoji import entries
from vcr_zoo.data.fluent import held_out
from vcr_zoo.data.split import position

NAMES = sorted(name for name, row in DATASETS.items() if not row.base and not row.make)
USERS_OWN = cache.home()  # before each test gets a cache of its own

# Who may read the test part: what measures at the end. Whatever selects stays out of this list.
READS_THE_TEST_PART = {
    "data/__init__.py",
    "data/load.py",
    "demo.py",
    "study/confirm.py",  # of what a search has chosen, with other seeds
    "suite.py",  # measures what a card claims
    "training/evaluate.py",
    "transfer/matrix.py",
    "transfer/several.py",
    "transfer/tuned.py",  # after every choice, as matrix.py does
}


@pytest.mark.parametrize("row", DATASETS.values(), ids=lambda row: row.name)
def test_a_row_says_everything(row):
    """What it shows, whose it is, what is undivided, and a way to get it."""
    assert DATASETS[row.name] is row
    assert all((row.shows, row.licence, row.attribution, row.group))
    assert next(iter(row.levels)) == "fine" and row.classes == row.levels["fine"] > 1
    assert bool(row.make) != bool(row.read and row.packages)
    assert all(len(total) == 64 for total in row.sha256) and bool(row.sha256) == bool(row.read)
    assert row.shape[2] in (1, 3) and row.publishable in (True, False)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_built_is_what_is_documented(name, monkeypatch):
    """Counts, classes, levels, shapes and parts; for sets that are on this machine."""
    monkeypatch.setenv("VCR_ZOO_CACHE", str(USERS_OWN))
    if not cache.complete(USERS_OWN / name, DATASETS[name]):
        try:
            cache.installed(DATASETS[name])
        except OSError as error:
            pytest.skip(f"{name} is not on this machine: {error}; vcr-zoo data get {name}")
    keeps_the_contract(name)


@pytest.mark.network
@pytest.mark.parametrize("name", NAMES)
def test_what_is_fetched_is_what_is_documented(name, own_cache):
    """The same, from the registries."""
    keeps_the_contract(name)


def keeps_the_contract(name: str) -> None:
    row = DATASETS[name]
    parts = {"train": load(name), "validation": load(name, "validation"), "test": load_test(name)}
    assert {part: len(images) for part, images in parts.items()} == row.pictures
    for part, images in parts.items():
        assert images.x.dtype == np.uint8 and images.x.shape[1:] == row.shape
        assert len(images.x) == len(images.y) == len(images.groups)
        assert len(images.classes) == row.classes == len(set(images.classes))
        assert set(images.y) == set(range(row.classes)), part  # every class in every part
    groups = [set(images.groups) for images in parts.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)), "a group is in two parts"
    for known, found in ((row.mean, images.mean), (row.std, images.std)):
        assert known is None or np.allclose(known, found, atol=2e-3)
    for level in row.levels:
        assert len(load(name, level=level).classes) == row.levels[level]


@pytest.mark.network
def test_fluent_shows_no_emoji_that_openart_trains_on(own_cache):
    """In any skin tone: a transfer from openart to fluent is to unseen things."""
    seen = {name for part in ("train", "validation") for name in load("openart", part).groups}
    fluent = [*load("fluent").groups, *load("fluent", "validation").groups]
    fluent += list(load_test("fluent").groups)
    assert not seen & {name.replace("fluent", "emoji") for name in fluent}


def test_held_out_emoji_are_openart_s_test_part():
    """One rule, two sets: the place of the emoji's group in [0, 1)."""
    codes = [f"1F{code:03X}" for code in range(300)]
    places = position(np.array([f"emoji {code}" for code in codes]), "test")
    assert [held_out(code) for code in codes] == (places < 0.3).tolist()


def test_emoji_come_with_their_skin_tones_and_without_components(tmp_path):
    """Each drawing names the emoji that it is a variant of."""
    table = """[{"image": "a.png", "unified": "A", "category": "People", "skin_variations":
        {"1F3FB": {"image": "a-1.png", "unified": "A-1"}}},
        {"image": "t.png", "unified": "T", "category": "Component"}]"""
    (tmp_path / "emoji.json").write_text(table)
    found = list(entries({"emoji-datasource-google/emoji.json": tmp_path / "emoji.json"}))
    assert [(image, entry["unified"]) for image, entry in found] == [
        ("a.png", "A"),
        ("a-1.png", "A"),
    ]


def test_only_what_measures_at_the_end_reads_the_test_part():
    """Selecting on it would make every number a lie; add a file here only with a reason."""
    package = Path(vcr_zoo.__file__).parent
    users = set()
    for path in package.rglob("*.py"):
        names = {
            getattr(node, "id", None) or getattr(node, "attr", None)
            for node in ast.walk(ast.parse(path.read_text()))
        }
        if "load_test" in names:
            users.add(path.relative_to(package).as_posix())
    assert users <= READS_THE_TEST_PART
