"""Commands that weights are published with: package, card, push, pull, export, space, reproduce."""

import sys

from .options import MODEL, add_jobs, feature_cache


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
    from vcr_zoo.card.evidence import misspelled
    from vcr_zoo.training.settle import check_recipe, settled

    run, recipe = Path(args.run_folder), settled(args.name)
    check_recipe(run, args.name)
    if wrong := misspelled(args.name, args.license):  # later no card could be made
        raise ValueError("; ".join(wrong))
    if (recipe.vcr_alpha or recipe.vcr_beta) and not args.control:
        raise ValueError(f"{args.name} has VCR: give its control, --control NAME")
    entry = zoo.package(run, args.name, license=args.license, control=args.control)
    print(f"{entry.file}: {entry.file.stat().st_size:,} bytes, sha256 {entry.sha256}")


def add_card(commands) -> None:
    parser = commands.add_parser(
        "card",
        help="the model card of a set of weights, or all of model_cards/ and the documents' tables",
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
    if args.check and not stale:
        print("all is as it would be generated")
    return 1 if stale else 0


def add_reproduce(commands) -> None:
    parser = commands.add_parser(
        "reproduce",
        help="measure a card's numbers again and compare; 1 if one differs",
        epilog="example: vcr-zoo reproduce test_resnet.vcr_fmnist4 --quick",
    )
    parser.add_argument("name", help="a name of this zoo, or owner/name of the Hub")
    parser.add_argument("--quick", action="store_true", help="leave out probes of the largest sets")
    parser.add_argument(
        "--retrain",
        action="store_true",
        help="train the pair anew with every seed, for its intervals",
    )
    add_jobs(parser, "networks")
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
    options["jobs"] = args.jobs
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
    parser.add_argument("--tag", help="of these weights (default: v1)")
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
    if args.create_pr and (args.tag or args.overwrite):
        raise ValueError("--create-pr proposes and tags nothing: leave --tag and --overwrite out")
    options = Options(args.private, args.create_pr, args.tag or "v1", args.overwrite)
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
    parser.add_argument("name", help=MODEL)
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
