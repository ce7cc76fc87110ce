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
    except KeyboardInterrupt as stopped:
        print(f"vcr-zoo {args.command}: {stopped or 'stopped'}", file=sys.stderr)
        return 130
    except (LookupError, ValueError, OSError, ImportError, RuntimeError, ArithmeticError) as error:
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
    print(f"import timm; model = timm.create_model({f'local-dir:{run}'!r}, pretrained=True)")


def add_pair(commands) -> None:
    parser = commands.add_parser(
        "pair",
        help="a recipe and its control, several seeds of each, trained, measured and compared",
        epilog="example: vcr-zoo pair test_resnet.vcr_fmnist4 --against test_resnet.base_fmnist4; "
        "options of `vcr-zoo train` may follow, for both",
    )
    parser.add_argument("name", help="a recipe with VCR")
    parser.add_argument("--against", required=True, metavar="CONTROL", help="its control's recipe")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="(0 to 4)")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time (default: 1)")
    parser.add_argument("--output", default="runs/pairs", help="folder (default: runs/pairs)")
    parser.set_defaults(run=run_pair, passes_rest=True)


def run_pair(args) -> int:
    from pathlib import Path

    from vcr_zoo.study.pair import pair

    options = {"seeds": args.seeds, "folder": Path(args.output), "jobs": args.jobs}
    options["options"] = args.rest
    return 2 if pair(args.name, args.against, **options) else 0


def add_search(commands) -> None:
    parser = commands.add_parser(
        "search",
        help="settings chosen on validation: many runs of recipes, a picture of what they did",
        epilog="example: vcr-zoo search test_resnet.base_fmnist4 --space vcr --budget 40; options "
        "of `vcr-zoo train` may follow, for all runs",
    )
    parser.add_argument("recipes", nargs="+", metavar="RECIPE", help="controls, as a rule")
    parser.add_argument(
        "--space", default="vcr", help="what is varied: vcr (default), control, decov, ..."
    )
    parser.add_argument("--budget", type=int, default=40, help="settings to try (default: 40)")
    parser.add_argument("--trials", nargs="+", type=int, help="only these; 0 is the recipe itself")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="(default: 0)")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time (default: 1)")
    parser.add_argument("--output", default="runs/search", help="folder (default: runs/search)")
    parser.set_defaults(run=run_search, passes_rest=True)


def run_search(args) -> int:
    from pathlib import Path

    from vcr_zoo.study.search import search

    options = {name: getattr(args, name) for name in ("space", "budget", "trials", "seeds", "jobs")}
    options |= {"folder": Path(args.output), "options": args.rest}
    return 2 if search(args.recipes, **options) else 0


def add_data(commands) -> None:
    parser = commands.add_parser(
        "data",
        help="list the data sets known by name, fetch them, look at them",
        epilog="example: vcr-zoo data get fmnist silhouettes",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    action = actions.add_parser("list", help="what there is, whose it is and where it comes from")
    action.set_defaults(run=run_data_list)
    action = actions.add_parser(
        "get",
        help="fetch and build sets into the cache ($VCR_ZOO_CACHE or ~/.cache/vcr_zoo)",
        epilog="example: vcr-zoo data get fmnist mnist silhouettes glyphs digits8",
    )
    action.add_argument("names", nargs="+", metavar="NAME")
    action.add_argument("--folder", help="a folder that holds the files or packages already")
    action.set_defaults(run=run_data_get)
    action = actions.add_parser(
        "show",
        help="write a labelled contact sheet",
        epilog="example: vcr-zoo data show fmnist --level coarse --output sheet.png",
    )
    action.add_argument("name", metavar="NAME")
    action.add_argument("--split", default="train", help="train or validation (default: train)")
    action.add_argument("--level", default="fine", help="fine or coarse (default: fine)")
    action.add_argument("--each", type=int, default=10, help="pictures of a class (default: 10)")
    action.add_argument("--output", help="PNG file (default: NAME.png)")
    action.set_defaults(run=run_data_show)


def run_data_list(args) -> None:
    from vcr_zoo.data import listing

    print(listing())


def run_data_get(args) -> int:
    from vcr_zoo.data import get

    failed = 0
    for name in args.names:
        try:
            print(get(name, args.folder))
        except (LookupError, ValueError, OSError, ImportError) as error:
            message = error.args[0] if isinstance(error, KeyError) else error
            print(f"vcr-zoo data get: {message}", file=sys.stderr)
            failed = 2
    return failed


def run_data_show(args) -> None:
    from pathlib import Path

    from vcr_zoo.data import load
    from vcr_zoo.data.sheet import sheet

    images = load(args.name, args.split, args.level)
    path = Path(args.output or f"{args.name.replace('/', '-')}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet(images, args.each).save(path)
    print(f"{images}\n{path}")


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
    from vcr_zoo.diagnostics.during import During
    from vcr_zoo.training import main as train

    return train(args.rest, prog="vcr-zoo train", during=During)


def add_eval(commands) -> None:
    parser = commands.add_parser(
        "eval",
        help="accuracy of a classifier on a split, over all and by class",
        epilog="example: vcr-zoo eval runs/test_resnet.vcr_fmnist4 --data fmnist --level coarse",
    )
    parser.add_argument("model", help="a registered name, hf-hub:owner/name, or a run's folder")
    parser.add_argument("--data", required=True, help="a named data set, or a folder of pictures")
    parser.add_argument("--split", default="validation", help="train, validation or test")
    parser.add_argument("--level", default="fine", choices=("fine", "coarse"), help="of labels")
    parser.add_argument("--batch-size", type=int, default=256, help="(default: 256)")
    parser.add_argument("--workers", type=int, default=0, help="that load pictures (default: 0)")
    parser.add_argument("--device", default="cpu", help="(default: cpu)")
    parser.add_argument("--picture", help="save the confusion matrix as this PNG")
    parser.set_defaults(run=run_eval)


def run_eval(args) -> None:
    from vcr_zoo.features import load_model
    from vcr_zoo.training.evaluate import draw_confusion, evaluate, open_pictures

    model = load_model(args.model)
    channels = model.pretrained_cfg["input_size"][0]
    images = open_pictures(args.data, args.split, args.level, channels)
    settings = {name: getattr(args, name) for name in ("batch_size", "workers", "device")}
    result = evaluate(model, images, **settings)
    fifth = f"  top-5 {100 * result.top5:.2f} %" if model.num_classes > 5 else ""
    print(f"top-1 {100 * result.top1:.2f} %{fifth}  of {result.pictures}")
    for name, recall in zip(result.classes, result.recall, strict=False):
        print(f"  {name:24} {100 * recall:6.2f} %")
    print(f"{result.images_per_second:,.0f} images/s")
    if args.picture:
        draw_confusion(result, args.picture)


def add_predict(commands) -> None:
    parser = commands.add_parser(
        "predict",
        help="the likeliest classes of picture files",
        epilog="example: vcr-zoo predict runs/test_resnet.vcr_fmnist4 shoe.png shirt.png",
    )
    parser.add_argument("model", help="a registered name, hf-hub:owner/name, or a run's folder")
    parser.add_argument("picture", nargs="+", help="picture files")
    parser.add_argument("--k", type=int, default=5, help="classes to name (default: 5)")
    parser.set_defaults(run=run_predict)


def run_predict(args) -> None:
    from vcr_zoo.features import load_model
    from vcr_zoo.training.evaluate import predict

    for path, likely in predict(load_model(args.model), args.picture, args.k).items():
        print(f"{path}: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in likely))


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
        help="a registered name, hf-hub:owner/name, local-dir:folder, a run's folder or a "
        "checkpoint; {seed} in it stands for each seed",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="NAME",
        help="data sets, or your own: folder/PATH, wds/PATH, hfds/NAME",
    )
    parser.add_argument(
        "--protocol",
        nargs="+",
        default=["probe"],
        metavar="NAME",
        help="probe, knn, prototype, fewshot, coarse-to-fine, scores (default: probe)",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="(default: 0)")
    parser.add_argument("--level", default="fine", help="label level: fine (default) or coarse")
    parser.add_argument("--against", metavar="MODEL", help="show paired differences from this one")
    parser.add_argument(
        "--output",
        default="transfer.jsonl",
        help="results; cells that it holds are not measured again (default: transfer.jsonl)",
    )
    parser.add_argument("--picture", help="PNG file (default: beside the results)")
    parser.add_argument("--cache", help="folder of features (default: in the data cache)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
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


def feature_cache():
    from vcr_zoo.data.cache import home

    return home() / "features"


def add_rank(commands) -> None:
    parser = commands.add_parser(
        "rank",
        help="which network to start from on your pictures, without training",
        epilog="example: vcr-zoo rank --data my/pictures",
    )
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="names or paths (default: all of this zoo)"
    )
    parser.add_argument(
        "--data",
        required=True,
        help="a data set (also folder/PATH, wds/PATH, hfds/NAME), or a folder with one subfolder "
        "for each class",
    )
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
        help="names or paths, two or more; {seed} in them stands for each seed",
    )
    parser.add_argument("--data", required=True, help="data set to probe on")
    parser.add_argument("--level", default="fine", help="label level: fine (default) or coarse")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="(default: 0)")
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
    if args.output:
        print(
            f"import timm, vcr_zoo; timm.create_model('local-dir:{args.output}', pretrained=True)"
        )


def add_inspect(commands) -> None:
    parser = commands.add_parser(
        "inspect",
        help="what a network's features are like: numbers, pictures and a page to send",
        epilog="example: vcr-zoo inspect test_resnet.vcr_fmnist4 "
        "--against test_resnet.base_fmnist4 --data fmnist --out runs/inspect",
    )
    parser.add_argument(
        "model",
        help="a registered name, hf-hub:owner/name, a run's folder, a checkpoint, or "
        "random:ARCHITECTURE, untrained",
    )
    parser.add_argument("--against", metavar="CONTROL", help="a second network, on the same axes")
    parser.add_argument("--data", required=True, help="a named data set, or a folder of pictures")
    parser.add_argument("--split", default="validation", help="train or validation (default)")
    parser.add_argument("--level", default="fine", help="label level: fine (default) or coarse")
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
    parser.add_argument("--device", default="cpu", help="(default: cpu)")
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
        help="a registered name, hf-hub:owner/name or a run's folder; A+B joins networks",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="NAME",
        help="data sets, or your own: folder/PATH, wds/PATH, hfds/NAME",
    )
    parser.add_argument(
        "--method",
        nargs="+",
        default=["full"],
        metavar="NAME",
        help="full, depth, dr-tune, l2-sp, delta, bss, gradual, lora, two-stage (default: full)",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="(default: 0)")
    parser.add_argument("--level", default="fine", help="label level: fine (default) or coarse")
    parser.add_argument("--size", type=int, help="train pictures, drawn by the seed (default: all)")
    parser.add_argument("--test", type=int, help="test pictures (default: all)")
    parser.add_argument(
        "--budget", type=int, default=1, help="runs to choose settings with (default: 1, none)"
    )
    add_loop_options(parser)
    parser.add_argument("--output", default="finetune.jsonl", help="(default: finetune.jsonl)")
    parser.add_argument(
        "--folder", help="keeps checkpoints and the network, loadable as local-dir:; goes on there"
    )
    parser.add_argument("--overwrite", action="store_true", help="begin again in that folder")
    parser.set_defaults(run=run_finetune)


def add_loop_options(parser) -> None:
    parser.add_argument("--epochs", type=int, help="(default: 20)")
    parser.add_argument("--lr", type=float, help="learning rate (default: 1e-3)")
    parser.add_argument("--batch-size", type=int, help="(default: 32)")
    parser.add_argument("--vcr-alpha", type=float, help="VCR while fine-tuning: variance weight")
    parser.add_argument("--vcr-beta", type=float, help="and its covariance weight")
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


def run_finetune(args) -> int:
    from vcr_zoo.transfer.command import finetune

    more = {name: getattr(args, name) for name in ("level", "size", "test", "budget")}
    more |= {"folder": args.folder, "overwrite": args.overwrite, "options": loop_options(args)}
    failed = finetune(args.models, args.data, args.method, args.seeds, args.output, **more)
    return 2 if failed else 0


def add_depth(commands) -> None:
    parser = commands.add_parser(
        "depth",
        help="how many of a network's first blocks to freeze on your pictures",
        epilog="example: vcr-zoo depth test_resnet.vcr_fmnist4 --data silhouettes "
        "--sizes 100 500 --seeds 0 1 2",
    )
    parser.add_argument("model", help="a registered name, hf-hub:owner/name or a run's folder")
    parser.add_argument("--data", required=True, help="a data set, or folder/PATH, hfds/NAME")
    parser.add_argument("--sizes", nargs="+", type=int, help="train pictures (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="(default: 0)")
    parser.add_argument("--level", default="fine", help="label level: fine (default) or coarse")
    parser.add_argument("--test", type=int, help="test pictures (default: all)")
    parser.add_argument("--afresh", action="store_true", help="the rest from random weights")
    parser.add_argument("--search", action="store_true", help="a third of the depths only")
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
    )


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
    parser.add_argument("--device", default="cpu", help="(default: cpu)")


def add_bench_train(benches) -> None:
    parser = bench_parser(benches, "train", "an epoch of training, beside timm's parts alone")
    parser.add_argument("--model", default="test_resnet", help="timm architecture")
    parser.add_argument("--pictures", type=int, default=512, help="(default: 512)")
    parser.add_argument("--size", type=int, default=64, help="of the pictures, in pixels")
    parser.add_argument("--batch-size", type=int, default=32, help="(default: 32)")
    parser.add_argument("--workers", type=int, default=0, help="that load pictures (default: 0)")
    parser.add_argument("--repeats", type=int, default=5, help="epochs of each (default: 5)")
    parser.add_argument("--device", default="cpu", help="(default: cpu)")


def add_bench_data(benches) -> None:
    parser = bench_parser(benches, "data", "training batches of small pictures, beside timm's")
    parser.add_argument("--size", type=int, default=32, help="in pixels (default: 32)")
    parser.add_argument("--channels", type=int, default=3, help="1 or 3 (default: 3)")
    parser.add_argument("--device", default="cpu", help="(default: cpu)")


def add_bench_step(benches) -> None:
    parser = bench_parser(benches, "step", "a training step with VCR, beside the plain one")
    parser.add_argument("--model", default="resnet50", help="timm architecture")
    parser.add_argument("--size", type=int, default=96, help="of the images, in pixels")
    parser.add_argument("--batch", type=int, default=16, help="images a step (default: 16)")
    parser.add_argument("--layers", default="blocks", help="what is regularized")
    parser.add_argument("--rows", type=int, default=64, help="of the sampled step (default: 64)")
    parser.add_argument("--amp", action="store_true", help="bfloat16 autocast")
    parser.add_argument("--compile", action="store_true", help="with torch.compile")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--device", default="cpu", help="(default: cpu)")
    parser.add_argument("--repeats", type=int, default=20, help="(default: 20)")


def add_bench_inspect(benches) -> None:
    parser = bench_parser(benches, "inspect", "one-pass diagnostics, beside the forward passes")
    parser.add_argument("--model", default="resnet18", help="timm architecture")
    parser.add_argument("--pictures", type=int, default=512, help="(default: 512)")
    parser.add_argument("--size", type=int, default=224, help="of the pictures, in pixels")
    parser.add_argument("--batch-size", type=int, default=64, help="(default: 64)")
    parser.add_argument("--layers", default="blocks,pooled", help="where (default: blocks,pooled)")
    parser.add_argument("--repeats", type=int, default=3, help="(default: 3)")
    parser.add_argument("--device", default="cpu", help="(default: cpu)")


def add_bench_depth(benches) -> None:
    parser = bench_parser(benches, "depth", "a depth sweep with kept activations, beside without")
    parser.add_argument("--model", default="resnet18", help="timm architecture")
    parser.add_argument("--pictures", type=int, default=128, help="(default: 128)")
    parser.add_argument("--size", type=int, default=64, help="of the pictures, in pixels")
    parser.add_argument("--epochs", type=int, default=15, help="of each run (default: 15)")
    parser.add_argument("--device", default="cpu", help="(default: cpu)")


def add_package(commands) -> None:
    parser = commands.add_parser(
        "package",
        help="put a finished run's weights into this package, in half precision",
        epilog="example: vcr-zoo package runs/test_resnet.vcr_fmnist4 test_resnet.vcr_fmnist4 "
        "--license mit --control test_resnet.base_fmnist4",
    )
    parser.add_argument("run_folder", help="folder of the run")
    parser.add_argument("name", help="architecture.tag that timm will know them by")
    parser.add_argument("--license", required=True, help="as the training data allows")
    parser.add_argument("--control", help="name of the network trained identically without VCR")
    parser.set_defaults(run=run_package)


def run_package(args) -> None:
    from pathlib import Path

    from vcr_zoo import zoo
    from vcr_zoo.training.options import recipes
    from vcr_zoo.training.settle import check_recipe

    run = Path(args.run_folder)
    if args.name in recipes():
        check_recipe(run, args.name)
    entry = zoo.package(run, args.name, license=args.license, control=args.control)
    print(f"{entry.file}: {entry.file.stat().st_size:,} bytes, sha256 {entry.sha256}")


def add_card(commands) -> None:
    parser = commands.add_parser(
        "card",
        help="the model card of a set of weights, or all of model_cards/ and README's table",
        epilog="example: vcr-zoo card test_resnet.vcr_fmnist4",
    )
    parser.add_argument("name", nargs="?", help="a name of this zoo; its card is printed")
    parser.add_argument("--all", action="store_true", help="write every generated file")
    parser.add_argument("--check", action="store_true", help="1 if a generated file is out of date")
    parser.add_argument("--add", metavar="FILE", help="enter a file of results into results.jsonl")
    parser.set_defaults(run=run_card)


def run_card(args) -> int:
    from pathlib import Path

    from vcr_zoo import card, zoo
    from vcr_zoo.card.book import add_file
    from vcr_zoo.training.options import recipes

    if not (args.name or args.all or args.check or args.add):
        raise ValueError("name a set of weights, or give --all, --check or --add FILE")
    if args.name:
        print(card.card(card.evidence(args.name)), end="")
    if args.add:
        print(f"{add_file(Path(args.add), {*zoo.manifest(), *recipes()})} results entered")
    if args.all:
        print("\n".join(f"{path} written" for path in card.regenerate()) or "all is up to date")
    stale = card.check() if args.check else []
    for path in stale:
        what = "is of no weights: remove it" if path.is_dir() else "is out of date: --all writes it"
        print(f"{path} {what}", file=sys.stderr)
    return 1 if stale else 0


def add_reproduce(commands) -> None:
    parser = commands.add_parser(
        "reproduce",
        help="measure a card's numbers again and compare; 1 if one differs",
        epilog="example: vcr-zoo reproduce test_resnet.vcr_fmnist4 --quick",
    )
    parser.add_argument("name", help="a name of this zoo, or owner/name of the Hub")
    parser.add_argument("--quick", action="store_true", help="only what takes seconds")
    parser.add_argument("--retrain", action="store_true", help="run the recipe again as well")
    parser.add_argument(
        "--record", action="store_true", help="write what is found into model_cards/results.jsonl"
    )
    parser.add_argument(
        "--run", dest="run_folder", help="with --record: weights of a finished run, not yet a name"
    )
    parser.set_defaults(run=run_reproduce)


def run_reproduce(args) -> int:
    from pathlib import Path

    from vcr_zoo.hub.reproduce import reproduce

    options = {name: getattr(args, name) for name in ("quick", "retrain", "record")}
    options["run"] = Path(args.run_folder) if args.run_folder else None
    return reproduce(args.name, **options, cache=feature_cache())


def add_push(commands) -> None:
    parser = commands.add_parser(
        "push",
        help="publish weights and card on the Hugging Face Hub, in one commit",
        epilog="example: vcr-zoo push test_resnet.vcr_fmnist4 --org my-org --dry-run",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="names of this zoo")
    parser.add_argument("--all", action="store_true", help="every set of weights of the manifest")
    parser.add_argument("--org", required=True, help="user or organization of the repositories")
    parser.add_argument("--dry-run", action="store_true", help="show what would be sent, and stop")
    parser.add_argument("--private", action="store_true", help="create private repositories")
    parser.add_argument("--create-pr", action="store_true", help="propose, instead of committing")
    parser.add_argument("--tag", default="v1", help="of these weights (default: v1)")
    parser.add_argument(
        "--overwrite", action="store_true", help="move a tag under which other weights lie"
    )
    parser.add_argument("--run", dest="run_folder", help="a finished run, for one NAME")
    parser.add_argument("--license", default="", help="of that run's weights")
    parser.add_argument("--control", help="name of that run's control")
    parser.add_argument("--control-run", help="the control's run, to be published along with it")
    parser.set_defaults(run=run_push)


def run_push(args) -> int:
    from pathlib import Path

    from vcr_zoo import zoo
    from vcr_zoo.hub.publish import publish
    from vcr_zoo.hub.push import Options

    names = list(zoo.manifest()) if args.all else args.names
    if not names or (args.run_folder and len(names) > 1) or (args.all and args.names):
        raise ValueError("name a set of weights, or several, or give --all; --run takes one NAME")
    if not args.run_folder and (args.license or args.control):
        raise ValueError("--license and --control describe a --run; packaged weights have theirs")
    run = {}
    if args.run_folder:
        run = {"runs": {names[0]: Path(args.run_folder)}}
        run |= {"license": args.license, "control": args.control}
    if args.control_run:
        if not run or not args.control:
            raise ValueError("--control-run goes with --run and with --control, its name")
        run["runs"][args.control] = Path(args.control_run)
        names = [args.control, *names]
    options = Options(args.private, args.create_pr, args.tag, args.overwrite)
    return publish(names, args.org, options, dry_run=args.dry_run, **run)


def add_pull(commands) -> None:
    parser = commands.add_parser(
        "pull",
        help="fetch weights and check them; names of this zoo, or any owner/name of the Hub",
        epilog="example: vcr-zoo pull test_resnet.vcr_fmnist4 --to my/folder",
    )
    parser.add_argument("name", help="a name of this zoo, owner/name or owner/name@revision")
    parser.add_argument("--to", help="folder that timm loads as local-dir: (default: the cache)")
    parser.set_defaults(run=run_pull)


def run_pull(args) -> None:
    from pathlib import Path

    from vcr_zoo.hub.pull import pull

    print(pull(args.name, Path(args.to) if args.to else None))


def add_export(commands) -> None:
    parser = commands.add_parser(
        "export",
        help="write a network as ONNX, its outputs compared (extra: vcr_zoo[onnx])",
        epilog="example: vcr-zoo export test_resnet.vcr_fmnist4 --onnx network.onnx",
    )
    parser.add_argument("name", help="a registered name, hf-hub:owner/name, or a run's folder")
    parser.add_argument("--onnx", required=True, metavar="FILE", help="to write")
    parser.set_defaults(run=run_export)


def run_export(args) -> None:
    from pathlib import Path

    from vcr_zoo.hub.onnx import export

    difference = export(args.name, Path(args.onnx))
    print(f"{args.onnx}: ONNX Runtime's logits differ from PyTorch's by at most {difference:.2g}")


def add_space(commands) -> None:
    parser = commands.add_parser(
        "space",
        help="a folder that is a demo, for a Space of the Hub or this machine",
        epilog="example: vcr-zoo space --out demo && python demo/app.py",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    parser.set_defaults(run=run_space)


def run_space(args) -> None:
    from pathlib import Path

    from vcr_zoo.hub.space import space

    folder = space(Path(args.out))
    print(f"{folder}: pip install gradio, then: python {folder / 'app.py'}")


BENCHES = [
    add_bench_step,
    add_bench_data,
    add_bench_probe,
    add_bench_features,
    add_bench_train,
    add_bench_inspect,
    add_bench_depth,
]  # add_bench_<part> functions

COMMANDS = [
    add_demo,
    add_pair,
    add_search,
    add_data,
    add_train,
    add_eval,
    add_predict,
    add_transfer,
    add_rank,
    add_concat,
    add_finetune,
    add_depth,
    add_inspect,
    add_starvation,
    add_bench,
    add_package,
    add_card,
    add_push,
    add_pull,
    add_export,
    add_space,
    add_reproduce,
]  # add_<command> functions, in the order that help lists them

if __name__ == "__main__":
    sys.exit(main())
