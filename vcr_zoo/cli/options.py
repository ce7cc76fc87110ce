"""Options that several commands have, in the same words everywhere."""

from argparse import ArgumentTypeError

MODEL = (
    "a registered name, hf-hub:owner/name, a run's folder, a checkpoint, tf_efficientnet_lite0 or "
    "random:ARCHITECTURE"
)


OWN = (
    "or your own: a folder (my/pictures@32 keeps 32 pixels), wds/PATH (WebDataset), hfds/NAME (of "
    "Hugging Face)"
)


def data_name(word: str) -> str:
    """A data set's name, also from a folder's path."""
    from vcr_zoo.data import named

    return named(word)


def add_data(parser) -> None:
    """Data sets, one or more."""
    parser.add_argument(
        "--data",
        nargs="+",
        type=data_name,
        required=True,
        metavar="NAME",
        help=f"data sets, {OWN}",
    )


def add_one_data(parser) -> None:
    """One data set."""
    parser.add_argument(
        "--data", type=data_name, required=True, metavar="NAME", help=f"a data set, {OWN}"
    )


def add_seeds(parser, *seeds: int) -> None:
    shown = " ".join(map(str, seeds))
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=seed,
        default=list(seeds),
        metavar="SEED",
        help=f"a result for each (default: {shown})",
    )


def seed(word: str) -> int:
    """A number from 0 up."""
    if not word.isdecimal():
        raise ArgumentTypeError(f"expected a number from 0 up, got {word!r}")
    return int(word)


def add_level(parser) -> None:
    parser.add_argument("--level", default="fine", help="label level: fine (default) or coarse")


def add_device(parser) -> None:
    parser.add_argument("--device", default="cpu", help="(default: cpu)")


def add_jobs(parser, what: str) -> None:
    parser.add_argument("--jobs", type=int, default=1, help=f"{what} at a time (default: 1)")


def add_loop_options(parser) -> None:
    """Those of a fine-tuning run."""
    parser.add_argument("--epochs", type=int, help="(default: 20)")
    parser.add_argument("--lr", type=float, help="learning rate (default: 1e-3)")
    parser.add_argument("--batch-size", type=int, help="(default: 32)")
    parser.add_argument("--vcr-alpha", type=float, help="VCR while fine-tuning, variance weight")
    parser.add_argument(
        "--vcr-beta",
        type=float,
        help="and covariance weight; at blocks unless --set vcr_layers=pooled",
    )
    parser.add_argument("--device", help="(default: cpu)")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="any setting of the loop or the method: docs/finetuning.md lists them",
    )


def loop_options(args) -> tuple:
    from vcr_zoo.transfer.command import options_of

    names = ("epochs", "lr", "batch_size", "vcr_alpha", "vcr_beta", "device")
    return options_of(args.set, {name: getattr(args, name) for name in names})


def feature_cache():
    """Folder of features that are kept."""
    from vcr_zoo.data.cache import home

    return home() / "features"
