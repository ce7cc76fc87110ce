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


COMMANDS = [add_train]  # add_<command> functions, in the order that help lists them

if __name__ == "__main__":
    sys.exit(main())
