"""vcr-zoo bench: parts timed beside what they are compared with."""

from .options import add_device


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
    columns = list(
        {key: None for value in figures.values() if isinstance(value, dict) for key in value}
    )
    if columns:
        print(" " * 10 + "".join(f"{column:>18}" for column in columns))
    for name, value in figures.items():
        if isinstance(value, dict):
            cells = (f"{value[key]:.4g}" if key in value else "" for key in columns)
            print(f"{name:10}" + "".join(f"{cell:>18}" for cell in cells))
        else:
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
    add_device(parser)


def add_bench_train(benches) -> None:
    parser = bench_parser(benches, "train", "an epoch of training, beside timm's parts alone")
    parser.add_argument("--model", default="test_resnet", help="timm architecture")
    parser.add_argument("--pictures", type=int, default=512, help="(default: 512)")
    parser.add_argument("--size", type=int, default=64, help="of the pictures, in pixels")
    parser.add_argument("--batch-size", type=int, default=32, help="(default: 32)")
    parser.add_argument("--workers", type=int, default=0, help="that load pictures (default: 0)")
    parser.add_argument("--repeats", type=int, default=5, help="epochs of each (default: 5)")
    add_device(parser)


def add_bench_data(benches) -> None:
    parser = bench_parser(benches, "data", "training batches of small pictures, beside timm's")
    parser.add_argument("--size", type=int, default=32, help="in pixels (default: 32)")
    parser.add_argument("--channels", type=int, default=3, help="1 or 3 (default: 3)")
    add_device(parser)


def add_bench_step(benches) -> None:
    parser = bench_parser(benches, "step", "a training step with VCR, beside the plain one")
    parser.add_argument("--model", default="resnet50", help="timm architecture")
    parser.add_argument("--size", type=int, default=96, help="of the images, in pixels")
    parser.add_argument("--batch", type=int, default=16, help="images a step (default: 16)")
    parser.add_argument("--layers", default="blocks", help="what is regularized")
    parser.add_argument("--rows", type=int, default=64, help="of the sampled step (default: 64)")
    parser.add_argument("--variant", help="of the sampled step; see docs/vcr.md")
    parser.add_argument("--share", type=float, help="of the sampled step's gradient")
    parser.add_argument(
        "--every", type=int, help="of the sampled step: turns (default: 4; 1 with --compile)"
    )
    parser.add_argument("--amp", action="store_true", help="bfloat16 autocast")
    parser.add_argument(
        "--compile",
        nargs="?",
        const="inductor",
        metavar="BACKEND",
        help="with torch.compile (default of BACKEND: inductor)",
    )
    parser.add_argument("--channels-last", action="store_true")
    add_device(parser)
    parser.add_argument("--repeats", type=int, default=20, help="(default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of this process (default: 0)")
    parser.add_argument("--results", metavar="FILE", help="receives ratios, memory and cosines")


def add_bench_inspect(benches) -> None:
    parser = bench_parser(benches, "inspect", "one-pass diagnostics, beside the forward passes")
    parser.add_argument("--model", default="resnet18", help="timm architecture")
    parser.add_argument("--pictures", type=int, default=512, help="(default: 512)")
    parser.add_argument("--size", type=int, default=224, help="of the pictures, in pixels")
    parser.add_argument("--batch-size", type=int, default=64, help="(default: 64)")
    parser.add_argument("--layers", default="blocks,pooled", help="where (default: blocks,pooled)")
    parser.add_argument("--repeats", type=int, default=3, help="(default: 3)")
    add_device(parser)


def add_bench_depth(benches) -> None:
    parser = bench_parser(benches, "depth", "a depth sweep with kept activations, beside without")
    parser.add_argument("--model", default="resnet18", help="timm architecture")
    parser.add_argument("--pictures", type=int, default=128, help="(default: 128)")
    parser.add_argument("--size", type=int, default=64, help="of the pictures, in pixels")
    parser.add_argument("--epochs", type=int, default=15, help="of each run (default: 15)")
    add_device(parser)


BENCHES = [
    add_bench_step,
    add_bench_data,
    add_bench_probe,
    add_bench_features,
    add_bench_train,
    add_bench_inspect,
    add_bench_depth,
]  # in the order that help lists them
