"""Image backbones pretrained with variance-covariance regularization, for timm."""

try:
    import timm  # noqa: F401
except RuntimeError as error:
    if "torchvision::" not in str(error):
        raise
    from importlib.metadata import version

    raise ImportError(
        f"torch {version('torch')} and torchvision {version('torchvision')} are not builds of one "
        "release, so torchvision cannot load its operators. Install both together, for example: "
        "pip install --force-reinstall torch torchvision"
    ) from None

from vcr_zoo import zoo
from vcr_zoo.transfer import concat as _concat  # noqa: F401 (timm's name for it)

__version__ = "0.1.0"

zoo.register(zoo.manifest())
