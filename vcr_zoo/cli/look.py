"""Commands that show what features are like: inspect, starvation."""

from .options import MODEL, OWN, add_device, add_level


def add_inspect(commands) -> None:
    parser = commands.add_parser(
        "inspect",
        help="what a network's features are like: numbers, pictures and a page to send",
        epilog="example: vcr-zoo inspect test_resnet.vcr_fmnist4 "
        "--against test_resnet.base_fmnist4 --data fmnist --out runs/inspect",
    )
    parser.add_argument("model", help=MODEL)
    parser.add_argument("--against", metavar="CONTROL", help="a second network, on the same axes")
    parser.add_argument("--data", required=True, help=f"a data set, {OWN}")
    parser.add_argument("--split", default="validation", help="train or validation (default)")
    add_level(parser)
    parser.add_argument("--out", required=True, metavar="FOLDER", help="receives the report")
    parser.add_argument(
        "--layers",
        default="blocks,pooled",
        help="blocks, stages, pooled or modules (default: blocks,pooled)",
    )
    parser.add_argument(
        "--positions",
        default="mean",
        choices=("mean", "one"),
        help="of a map: their mean (default), or one of each picture, as the penalty sees them",
    )
    parser.add_argument("--pictures", type=int, default=10_000, help="at most (default: 10000)")
    parser.add_argument(
        "--sample", type=int, default=2000, help="compared with each other (default: 2000)"
    )
    parser.add_argument(
        "--corrupted", type=int, default=500, help="also made worse; 0: none (default: 500)"
    )
    parser.add_argument("--seed", type=int, default=0, help="draws pictures (default: 0)")
    parser.add_argument("--batch-size", type=int, default=64, help="(default: 64)")
    add_device(parser)
    parser.set_defaults(run=run_inspect)


def run_inspect(args) -> None:
    from vcr_zoo.diagnostics.command import inspected

    options = {name: getattr(args, name) for name in ("layers", "positions", "sample", "corrupted")}
    options |= {name: getattr(args, name) for name in ("seed", "batch_size", "device")}
    names = [args.model, *([args.against] if args.against else [])]
    where = (args.data, args.split, args.level, args.pictures)
    for path in inspected(names, *where, args.out, **options):
        print(path)


def add_starvation(commands) -> None:
    parser = commands.add_parser(
        "starvation",
        help="two toys in which one feature starves another, with and without VCR",
        epilog="example: vcr-zoo starvation --out runs/starvation --runs 10",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="receives the report")
    parser.add_argument("--runs", type=int, default=10, help="networks of each (default: 10)")
    parser.add_argument(
        "--alpha", type=float, default=0.0, help="of the variance term (default: 0)"
    )
    parser.add_argument(
        "--beta", type=float, default=10.0, help="of the covariance term (default: 10)"
    )
    parser.add_argument("--data", default="fmnist", help="of the image toy (default: fmnist)")
    parser.set_defaults(run=run_starvation)


def run_starvation(args) -> None:
    from vcr_zoo.diagnostics.starvation import report

    print(report(args.out, runs=args.runs, alpha=args.alpha, beta=args.beta, data=args.data))
