"""Commands that train networks and ask them: demo, pair, search, train, eval, predict."""

import sys

from .options import MODEL, OWN, add_device, add_jobs, add_level, add_seeds


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
        allow_abbrev=False,  # --seed is training's
        help="a recipe and its control, several seeds of each, trained, measured and compared",
        epilog="example: vcr-zoo pair test_resnet.vcr_fmnist4 --against test_resnet.base_fmnist4; "
        "options of `vcr-zoo train` may follow, for both; what continues from trained weights is "
        "compared with those too",
    )
    parser.add_argument("name", help="a recipe with VCR")
    parser.add_argument("--against", required=True, metavar="CONTROL", help="its control's recipe")
    add_seeds(parser, 0, 1, 2, 3, 4)
    add_jobs(parser, "networks")
    parser.add_argument("--quick", action="store_true", help="leave out probes of the largest sets")
    parser.add_argument("--output", default="runs/pairs", help="folder (default: runs/pairs)")
    parser.set_defaults(run=run_pair, passes_rest=True)


def run_pair(args) -> int:
    from pathlib import Path

    from vcr_zoo.study.pair import pair

    options = {"seeds": args.seeds, "folder": Path(args.output), "jobs": args.jobs}
    options |= {"quick": args.quick, "options": args.rest}
    return 2 if pair(args.name, args.against, **options) else 0


def add_search(commands) -> None:
    parser = commands.add_parser(
        "search",
        allow_abbrev=False,  # --seed is training's
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
    add_seeds(parser, 0)
    parser.add_argument(
        "--confirm",
        nargs="+",
        type=int,
        default=[],
        metavar="SEED",
        help="measure the best on test parts too, trained with these other seeds",
    )
    add_jobs(parser, "networks")
    parser.add_argument("--output", default="runs/search", help="folder (default: runs/search)")
    parser.set_defaults(run=run_search, passes_rest=True)


def run_search(args) -> int:
    from pathlib import Path

    from vcr_zoo.study.search import search

    names = ("space", "budget", "trials", "seeds", "confirm", "jobs")
    options = {name: getattr(args, name) for name in names}
    options |= {"folder": Path(args.output), "options": args.rest}
    return 2 if search(args.recipes, **options) else 0


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
    parser.add_argument("model", help=MODEL)
    parser.add_argument("--data", required=True, help=f"a data set, {OWN}")
    parser.add_argument("--split", default="validation", help="train, validation or test")
    add_level(parser)
    parser.add_argument("--batch-size", type=int, default=256, help="(default: 256)")
    parser.add_argument("--workers", type=int, default=0, help="that load pictures (default: 0)")
    add_device(parser)
    parser.add_argument("--picture", help="save the confusion matrix as this PNG")
    parser.set_defaults(run=run_eval)


def run_eval(args) -> None:
    from vcr_zoo.data import DATASETS
    from vcr_zoo.features import load_model
    from vcr_zoo.training.evaluate import draw_confusion, evaluate, open_pictures

    model = load_model(args.model)
    channels = model.pretrained_cfg["input_size"][0]
    images = open_pictures(args.data, args.split, args.level, channels)
    settings = {name: getattr(args, name) for name in ("batch_size", "workers", "device")}
    result = evaluate(model, images, **settings)
    fifth = f"  top-5 {100 * result.top5:.2f} %" if model.num_classes > 5 else ""
    where = ", ".join([args.data, *([images.split] if args.data in DATASETS else [])])
    print(f"top-1 {100 * result.top1:.2f} %{fifth}  of {result.pictures:,} pictures: {where}")
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
    parser.add_argument("model", help=MODEL)
    parser.add_argument("picture", nargs="+", help="picture files")
    parser.add_argument("--k", type=int, default=5, help="classes to name (default: 5)")
    parser.set_defaults(run=run_predict)


def run_predict(args) -> int:
    from vcr_zoo.features import load_model
    from vcr_zoo.training.evaluate import predict

    failed = 0
    for path, likely in predict(load_model(args.model), args.picture, args.k):
        if isinstance(likely, OSError):
            print(f"vcr-zoo predict: {likely}", file=sys.stderr)
            failed = 2
            continue
        print(f"{path}: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in likely))
    return failed
