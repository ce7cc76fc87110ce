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


COMMANDS = []  # add_<command> functions, in the order that help lists them

if __name__ == "__main__":
    sys.exit(main())
