"""Every option of timm's training script is there, with its name, type, default and meaning."""

import argparse
from pathlib import Path

import pytest
import yaml
from timm.utils import ParseKwargs

from vcr_zoo.training.options import as_yaml, parse, parser, recipe_file, recipes

ADDED = {  # by timm 1.0.31, of which only the names are known
    **{"task": str, "loss": str, "target_format": str, "multilabel_threshold": float},
    **{"stop_epoch": int, "save_epochs": int, "lr_decay_fn": str, "lr_stable_timescale": float},
}


class Utils:
    ParseKwargs = ParseKwargs


def listed() -> list[tuple[list[str], dict]]:
    """Names and argparse settings of each option in the list taken from timm's script."""
    lines = Path(__file__).with_name("timm_options.txt").read_text().splitlines()
    rows = [line.split("|", 1) for line in lines if not line.startswith("#")]
    settings = {"utils": Utils, "str": str, "int": int, "float": float}
    return [(n.split(), eval(f"dict({text})", settings)) for n, text in rows]


def value_for(settings: dict) -> tuple[list[str], object]:
    """Words that set an option to something other than its default, and what they parse to."""
    if settings.get("action") is ParseKwargs:
        return ["a=1", "b=x"], {"a": 1, "b": "x"}
    kind = settings.get("type", str)
    word, value = {int: ("7", 7), float: ("0.625", 0.625), str: ("word", "word")}[kind]
    if choices := settings.get("choices"):
        word = value = choices[-1]
    if settings.get("nargs") in ("+", 3):
        return [word] * 3, [value] * 3
    return [word], value


@pytest.mark.parametrize("names, settings", listed())
def test_option_is_timms(names, settings):
    """Default, type and every spelling agree with the list, and so does the YAML key."""
    made, dest = parser(), names[-1].lstrip("-").replace("-", "_")
    if len(names) > 1 and names[0].startswith("--"):
        dest = names[0].lstrip("-").replace("-", "_")
    switch = settings.get("action") == "store_true"  # whose default, unless stated, is False
    assert made.get_default(dest) == settings.get("default", False if switch else None)
    if switch:
        assert vars(made.parse_args([names[-1]]))[dest] is True
        return
    words, value = value_for(settings)
    for name in names:
        line = words if dest == "data" else [name, *words]
        found = vars(made.parse_args(line))[dest]
        assert found == value and type(found) is type(value)


def test_the_list_is_whole():
    """173 options, as counted in the source that the list was taken from."""
    assert len(listed()) == 173


@pytest.mark.parametrize("name, kind", ADDED.items())
def test_later_options_have_the_obvious_type(name, kind):
    action = next(action for action in parser()._actions if action.dest == name)
    assert (action.type or str) is kind


def flags() -> list[argparse.Action]:
    return [
        a for a in parser()._actions if a.nargs == 0 and a.dest not in ("help", argparse.SUPPRESS)
    ]


@pytest.mark.parametrize("action", flags(), ids=lambda action: action.dest)
def test_each_switch_turns_on_and_off(action, tmp_path):
    """From the command line and from YAML; a flag can undo what a file turned on."""
    name, file = action.option_strings[0], tmp_path / "c.yaml"
    assert vars(parse([name]))[action.dest] is True
    file.write_text(f"{action.dest}: true\n")
    assert vars(parse(["-c", str(file)]))[action.dest] is True
    if not name.startswith("--no-"):
        off = "--no-" + name.removeprefix("--")
        assert vars(parse(["-c", str(file), off]))[action.dest] is False


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("modle: resnet18", "unknown key 'modle'.*model"),
        ("epochs: many", "'epochs' must be of type int"),
        ("epochs: 1.5", "'epochs' must be of type int"),
        ("amp: 1", "'amp' must be of type bool"),
        ("mean: [0.5, black]", "'mean' must be of type float"),
        ("input_size: [3, 32]", "'input_size' takes 3 values"),
        ("kd_distill_type: soft", "choose from logit, feature, token"),
        ("model: null", "'model' must be of type str"),
        ("- a list", "one 'option: value' a line"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path, text, complaint):
    """Unknown and mistyped keys are errors, with the closest names."""
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        parse(["--config", str(tmp_path / "c.yaml")])


def test_yaml_numbers_may_be_written_as_people_write_them(tmp_path):
    """YAML reads 1e-3 as a string and 1 as an int; both are numbers here."""
    (tmp_path / "c.yaml").write_text("lr: 1e-3\nweight_decay: 0\nmodel_kwargs: {img: 3}\n")
    args = parse(["-c", str(tmp_path / "c.yaml")])
    assert (args.lr, args.weight_decay, args.model_kwargs) == (0.001, 0.0, {"img": 3})


def test_a_flag_overrides_the_file_and_the_file_the_recipe(tmp_path):
    recipe = next(name for name in recipes() if ".vcr_" in name)
    alpha = yaml.safe_load(recipe_file(recipe).read_text())["vcr_alpha"]
    (tmp_path / "c.yaml").write_text(f"recipe: {recipe}\nepochs: 3\nbatch_size: 9\n")
    args = parse(["-c", str(tmp_path / "c.yaml"), "--batch-size", "11"])
    assert (args.epochs, args.batch_size, args.vcr_alpha) == (3, 11, alpha)
    assert {"epochs", "batch_size", "vcr_alpha"} <= args.given and "bn_eps" not in args.given


def test_what_a_run_writes_is_what_a_run_reads(tmp_path):
    """args.yaml is a configuration of its own."""
    args = parse(["--model", "test_vit", "--lr", "0.5", "--mean", "0.1", "--amp"])
    (tmp_path / "args.yaml").write_text(as_yaml(args))
    again = parse(["-c", str(tmp_path / "args.yaml")])
    assert yaml.safe_load(as_yaml(again)) == yaml.safe_load(as_yaml(args))


@pytest.mark.parametrize("name", recipes())
def test_recipe_opens_with_its_command_and_reads(name):
    """A pair's recipes differ in the two coefficients alone."""
    args = parse(["--recipe", name])
    text = recipe_file(name).read_text()
    start = "torchrun --nproc-per-node 8 train.py IMAGENET"
    start = start if name.split(".")[1] in ("base_in1k", "vcr_in1k") else "python train.py"
    assert text.startswith(f"# {start} --recipe {name}\n")
    if ".vcr_" in name:
        control = vars(parse(["--recipe", name.replace(".vcr_", ".base_")]))
        differing = {key for key, value in vars(args).items() if control[key] != value}
        assert differing == {"recipe", "vcr_alpha", "vcr_beta"}
        assert control["vcr_alpha"] == control["vcr_beta"] == 0
    assert yaml.safe_load(text).get("recipe") is None


def test_unknown_options_and_recipes_name_the_closest():
    with pytest.raises(ValueError, match=r"--vcr-alhpa.*--vcr-alpha"):
        parse(["--vcr-alhpa", "1"])
    with pytest.raises(LookupError, match=recipes()[0]):
        parse(["--recipe", recipes()[0] + "x"])
    with pytest.raises(ValueError, match="key=value"):
        parse(["--model-kwargs", "depth"])


def test_what_a_run_writes_does_not_overwrite(tmp_path):
    """--overwrite is said each time, or it would one day remove what nobody meant."""
    assert "overwrite" not in yaml.safe_load(as_yaml(parse(["--overwrite"])))


def test_what_a_run_writes_begins_nowhere(tmp_path):
    """Read again it is another run's configuration, not the continuation of the first."""
    args = parse(["--resume", "auto", "--wandb-resume-id", "abc", "--dry-run"])
    assert not {"resume", "wandb_resume_id", "dry_run"} & yaml.safe_load(as_yaml(args)).keys()


def test_a_configuration_names_no_other(tmp_path):
    """It would not be read, and nothing may be passed over in silence."""
    (tmp_path / "c.yaml").write_text("config: other.yaml\n")
    with pytest.raises(ValueError, match="unknown key 'config'"):
        parse(["-c", str(tmp_path / "c.yaml")])


def test_one_word_switches_on_what_recipes_share_that_were_not_tuned():
    """Whatever else is said on the command line counts for more, before it or after."""
    ours = vars(parse(["--recipe", "test_vit.base_fmnist4", "--vcr"]))
    theirs = vars(parse(["--recipe", "test_vit.vcr_fmnist4"]))
    assert {name for name in ours if ours[name] != theirs[name]} <= {"recipe", "given"}
    assert {"vcr_alpha", "vcr_beta", "vcr_layers"} <= parse(["--vcr"]).given

    for words in (["--vcr", "--vcr-beta", "2"], ["--vcr-beta", "2", "--vcr"]):
        args = parse(words)
        assert (args.vcr_alpha, args.vcr_beta, args.vcr_layers) == (0.39, 2.0, "pooled")
    assert "vcr" not in vars(args) and parse([]).vcr_alpha == 0


def test_and_one_switches_it_off():
    """It was once taken for short of --no-vcr-sync, and did nothing."""
    for words in (["--recipe", "test_resnet.vcr_fmnist4", "--no-vcr"], ["--vcr", "--no-vcr"]):
        args = parse(words)
        assert args.vcr_alpha == args.vcr_beta == 0 and not args.vcr_sync
    assert parse(["--no-vcr", "--vcr-beta", "2"]).vcr_beta == 2


def test_the_word_is_no_key_of_a_file(tmp_path):
    """There the coefficients themselves belong, which somebody will read."""
    (tmp_path / "mine.yaml").write_text("vcr: true")
    with pytest.raises(ValueError, match="unknown key 'vcr'"):
        parse(["--config", str(tmp_path / "mine.yaml")])


def test_help_says_what_an_option_is_unless_told(capsys):
    """Also in the parser that leaves defaults out, to know what was given."""
    with pytest.raises(SystemExit):
        parse(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for line in (
        "--epochs EPOCHS (default: 300)",
        "--vcr-beta VCR_BETA weight of the covariance term (default: 0.0)",
        "--vcr-rows VCR_ROWS samples of a map in a step; 0: all of them (default: 64)",
    ):
        assert line in shown
    assert "None)" not in shown and "[])" not in shown and "False)" not in shown
