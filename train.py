"""Train a timm model, with VCR if asked for: `python train.py --help` lists every option."""

import sys

try:
    from vcr_zoo.diagnostics.during import During
    from vcr_zoo.training import main
except ImportError as error:  # a package that is missing, or torch and torchvision at odds
    print(f"train.py: {error}", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    sys.exit(main(during=During))
