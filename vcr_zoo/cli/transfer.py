"""Commands that say what features are good for: transfer, rank, concat, finetune, depth."""

import sys

from .options import (
    MODEL,
    add_data,
    add_jobs,
    add_level,
    add_loop_options,
    add_one_data,
    add_seeds,
    feature_cache,
    loop_options,
)


def add_transfer(commands) -> None:
    example = (
        "example: vcr-zoo transfer test_resnet.vcr_fmnist4 --data silhouettes --protocol probe knn "
        "--against test_resnet.base_fmnist4"
    )
    parser = commands.add_parser(
        "transfer",
        help="what frozen features are good for, on several data sets, against a control",
        epilog=example,
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help=f"{MODEL}; {{seed}} in it stands for each seed",
    )
    add_data(parser)
    parser.add_argument(
        "--protocol",
        nargs="+",
        default=["probe"],
        metavar="NAME",
        help="probe, knn, prototype, fewshot, coarse-to-fine, scores (default: probe)",
    )
    add_seeds(parser, 0)
    add_level(parser)
    parser.add_argument("--against", metavar="MODEL", help="show paired differences from this one")
    parser.add_argument(
        "--output",
        default="transfer.jsonl",
        help="results; cells that it holds are not measured again (default: transfer.jsonl)",
    )
    parser.add_argument("--picture", help="PNG file (default: beside the results)")
    parser.add_argument("--cache", help="folder of features (default: in the data cache)")
    add_jobs(parser, "cells")
    parser.add_argument(
        "--launcher",
        choices=["slurm", "local"],
        help="hand the cells to submitit, --jobs at a time (extra: vcr_zoo[slurm])",
    )
    parser.set_defaults(run=run_transfer)


def run_transfer(args) -> int:
    from pathlib import Path

    from vcr_zoo.transfer import compare, matrix

    models = dict.fromkeys([*args.models, *([args.against] if args.against else [])])
    cells = matrix.cells(models, args.data, args.protocol, args.seeds, args.level)
    measured, failed = {}, 0
    options = {"cache": args.cache or feature_cache(), "jobs": args.jobs}
    for cell, results in matrix.run(cells, args.output, launcher=args.launcher, **options):
        name = f"{cell.weights} on {cell.data}, {cell.protocol}"
        if isinstance(results, Exception):
            failed += 1
            print(f"{name}: {results}", file=sys.stderr)
        else:
            measured[cell] = results
            main = next(iter(results.values()))
            print(f"{name}: {main.metric} {main.value:.4f}", flush=True)
    measured = {cell: measured[cell] for cell in cells if cell in measured}
    if measured:
        rows = compare.rows(measured, args.output, args.against)
        print(f"\n{compare.table(rows, args.against)}")
        if any(row.protocol != "scores" for row in rows):
            picture = args.picture or Path(args.output).with_suffix(".png")
            compare.draw(rows, picture, args.against)
            print(f"\n{args.output}, {picture}")
    return 2 if failed else 0


def add_rank(commands) -> None:
    parser = commands.add_parser(
        "rank",
        help="which network to start from on your pictures, without training",
        epilog="example: vcr-zoo rank --data my/pictures",
    )
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help=f"{MODEL} (default: all of this zoo)"
    )
    add_one_data(parser)
    parser.add_argument("--limit", type=int, default=5000, help="pictures used (default: 5000)")
    parser.add_argument("--seed", type=int, default=0, help="draws them (default: 0)")
    parser.set_defaults(run=run_rank)


def run_rank(args) -> None:
    from vcr_zoo import zoo
    from vcr_zoo.transfer.rank import rank, report

    models = args.models or list(zoo.manifest())
    standings = rank(models, args.data, limit=args.limit, seed=args.seed, cache=feature_cache())
    print(report(standings, args.data))


def add_concat(commands) -> None:
    parser = commands.add_parser(
        "concat",
        help="several networks as one, beside each alone, averaged logits and one long run",
        epilog="example: vcr-zoo concat runs/short-0 runs/short-1 --data silhouettes --output two",
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help=f"two or more, each {MODEL}; {{seed}} in them stands for each seed",
    )
    add_one_data(parser)
    add_level(parser)
    add_seeds(parser, 0)
    parser.add_argument("--long", metavar="MODEL", help="one run of as many steps as all of them")
    parser.add_argument(
        "--per",
        choices=["network", "feature"],
        default="network",
        help="what is brought to one scale: each network as a whole (default), or each feature",
    )
    parser.add_argument("--output", help="folder for the joined network, loadable as local-dir:")
    parser.add_argument("--results", default="concat.jsonl", help="(default: concat.jsonl)")
    parser.set_defaults(run=run_concat)


def run_concat(args) -> None:
    from vcr_zoo.transfer.several import over_seeds, report, run

    options = {"per": args.per, "level": args.level, "save": args.output, "cache": feature_cache()}
    settings = {"long": args.long, "seeds": args.seeds, "out": args.results}
    print(report(*over_seeds(run(args.models, args.data, **settings, **options))))
    print(f"\n{args.results}")
    folders = [args.output.replace("{seed}", str(n)) for n in args.seeds] if args.output else []
    for folder in dict.fromkeys(folders):
        print(f"import timm, vcr_zoo; timm.create_model('local-dir:{folder}', pretrained=True)")


def add_finetune(commands) -> None:
    parser = commands.add_parser(
        "finetune",
        help="train a network further on your classes, by any of several methods",
        epilog="example: vcr-zoo finetune test_resnet.vcr_fmnist4 --data silhouettes --size 500 "
        "--method full dr-tune --seeds 0 1 2 --set epochs=20",
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help=f"{MODEL}; A+B joins networks, {{seed}} stands for each seed",
    )
    add_data(parser)
    parser.add_argument(
        "--method",
        nargs="+",
        default=["full"],
        metavar="NAME",
        help="full, depth, dr-tune, l2-sp, delta, bss, gradual, lora, scratch, two-stage "
        "(default: full)",
    )
    add_seeds(parser, 0)
    add_level(parser)
    parser.add_argument("--size", type=int, help="train pictures, drawn by the seed (default: all)")
    parser.add_argument("--test", type=int, help="at most so many test pictures (default: all)")
    parser.add_argument(
        "--budget", type=int, default=1, help="runs to choose settings with (default: 1, none)"
    )
    parser.add_argument(
        "--against",
        metavar="MODEL",
        help="fine-tune this network too, and show paired differences from it (default: from the "
        "first method, or full)",
    )
    add_loop_options(parser)
    parser.add_argument("--output", default="finetune.jsonl", help="(default: finetune.jsonl)")
    parser.add_argument(
        "--folder", help="keeps checkpoints and the network, loadable as local-dir:; goes on there"
    )
    parser.add_argument("--overwrite", action="store_true", help="begin again in that folder")
    parser.set_defaults(run=run_finetune)


def run_finetune(args) -> int:
    from vcr_zoo.transfer.command import finetune

    more = {name: getattr(args, name) for name in ("level", "size", "test", "budget")}
    more |= {name: getattr(args, name) for name in ("against", "folder", "overwrite")}
    more["options"] = loop_options(args)
    failed = finetune(args.models, args.data, args.method, args.seeds, args.output, **more)
    return 2 if failed else 0


def add_depth(commands) -> None:
    parser = commands.add_parser(
        "depth",
        help="how many of a network's first blocks to freeze on your pictures",
        epilog="example: vcr-zoo depth test_resnet.vcr_fmnist4 --data silhouettes "
        "--sizes 100 500 --seeds 0 1 2",
    )
    parser.add_argument("model", help=MODEL)
    add_one_data(parser)
    parser.add_argument("--sizes", nargs="+", type=int, help="train pictures (default: all)")
    add_seeds(parser, 0)
    add_level(parser)
    parser.add_argument("--test", type=int, help="at most so many test pictures (default: all)")
    parser.add_argument("--afresh", action="store_true", help="the rest from random weights")
    parser.add_argument("--search", action="store_true", help="a third of the depths only")
    parser.add_argument(
        "--budget", type=int, default=1, help="runs to choose each depth's rate with (default: 1)"
    )
    parser.add_argument("--no-likeness", action="store_true", help="leave the lower panel out")
    add_loop_options(parser)
    parser.add_argument("--output", default="depth.jsonl", help="results (default: depth.jsonl)")
    parser.add_argument("--picture", default="depth.png", help="(default: depth.png)")
    parser.set_defaults(run=run_depth)


def run_depth(args) -> None:
    from vcr_zoo.transfer.command import depth

    options = dict(loop_options(args))
    options.setdefault("views", 4)
    if args.afresh:
        options["afresh"] = True
    depth(
        args.model,
        args.data,
        args.sizes or [None],
        args.seeds,
        args.output,
        picture=args.picture,
        options=tuple(sorted(options.items())),
        search=args.search,
        alike=not args.no_likeness,
        level=args.level,
        test=args.test,
        budget=args.budget,
    )
