"""Train a timm model, with VCR if asked for: `python train.py --help` lists every option."""

import sys

from vcr_zoo.training import main

if __name__ == "__main__":
    sys.exit(main())
