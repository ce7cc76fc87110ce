"""vcr-zoo <command>: arguments, one call into the package, and what came back."""

import argparse
import sys


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 if it did what was asked, 2 if the request was wrong."""
    parser = argparse.ArgumentParser(prog="vcr-zoo", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for add in COMMANDS:
        add(commands)
    args, rest = parser.parse_known_args(argv)
    if rest and not getattr(args, "passes_rest", False):
        commands.choices[args.command].error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    try:
        return args.run(args) or 0
    except (LookupError, ValueError, OSError, ImportError, RuntimeError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"vcr-zoo {args.command}: {message}", file=sys.stderr)
        return 2


def add_demo(commands) -> None:
    parser = commands.add_parser(
        "demo",
        help="train a control and a VCR network on Fashion-MNIST and compare them, in minutes",
        epilog="example: vcr-zoo demo --seeds 1 --output runs/demo",
    )
    parser.add_argument("--output", default="runs/demo", help="folder (default: runs/demo)")
    parser.add_argument("--seeds", type=int, default=3, help="pairs to train (default: 3)")
    parser.add_argument("--data-dir", help="folder with Fashion-MNIST, if it is not to be fetched")
    parser.set_defaults(run=run_demo)


def run_demo(args) -> None:
    from pathlib import Path

    from vcr_zoo.demo import VCR, demo

    folder = Path(args.data_dir) if args.data_dir else None
    found = demo(Path(args.output), seeds=args.seeds, data_folder=folder)
    print(f"\nA demonstration, not evidence: {args.seeds} pair(s) of small, short runs.\n")
    print(found.table())
    print(f"\nBoth covariance spectra: {found.folder / 'spectra.png'}")
    print(f"Every number, with its command: {found.folder / 'results.jsonl'}")
    run = found.folder / f"{VCR}-seed0"
    print("\nUse the network from Python, with timm alone:\n")
    print(f"import timm; model = timm.create_model('local-dir:{run}', pretrained=True)")


def add_train(commands) -> None:
    example = "example: vcr-zoo train --recipe test_resnet.vcr_fmnist4"
    parser = commands.add_parser(
        "train",
        add_help=False,
        help="train a timm model, with VCR if asked for; takes the options of timm's script",
        epilog=example,
    )
    parser.set_defaults(run=run_train, passes_rest=True)


def run_train(args) -> int:
    from vcr_zoo.training import main as train

    return train(args.rest, prog="vcr-zoo train")


def add_bench(commands) -> None:
    parser = commands.add_parser(
        "bench",
        help="time a part beside what it is compared with",
        epilog="example: vcr-zoo bench probe --json",
    )
    benches = parser.add_subparsers(dest="bench", required=True, metavar="part")
    for add in BENCHES:
        add(benches)


def bench_parser(benches, name: str, help: str):
    """A parser of `vcr-zoo bench NAME`; its options are the arguments of vcr_zoo.bench.NAME."""
    parser = benches.add_parser(name, help=help, epilog=f"example: vcr-zoo bench {name} --json")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run_bench)
    return parser


def run_bench(args) -> None:
    import importlib
    import json

    bench = importlib.import_module(f"vcr_zoo.bench.{args.bench}").bench
    own = {"command", "bench", "json", "run", "rest"}
    figures = bench(**{key: value for key, value in vars(args).items() if key not in own})
    if args.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:26} {value:.4g}" if isinstance(value, float) else f"{name:26} {value}")


def add_bench_probe(benches) -> None:
    parser = bench_parser(benches, "probe", "the probe's solver, beside scikit-learn's")
    parser.add_argument("--n", type=int, default=10_000, help="pictures (default: 10000)")
    parser.add_argument("--d", type=int, default=512, help="features (default: 512)")
    parser.add_argument("--classes", type=int, default=100, help="(default: 100)")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="of the gradient")


def add_bench_features(benches) -> None:
    parser = bench_parser(benches, "features", "feature extraction, beside a bare loop")
    parser.add_argument("--model", default="resnet18", help="timm architecture")
    parser.add_argument("--pictures", type=int, default=1024, help="(default: 1024)")
    parser.add_argument("--size", type=int, default=32, help="of the pictures, in pixels")
    parser.add_argument("--device", default="cpu", help="(default: cpu)")


BENCHES = [add_bench_probe, add_bench_features]  # add_bench_<part> functions

COMMANDS = [
    add_demo,
    add_train,
    add_bench,
]  # add_<command> functions, in the order that help lists them

if __name__ == "__main__":
    sys.exit(main())
