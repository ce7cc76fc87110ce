"""A network as ONNX, compared with PyTorch on the same pictures before anybody relies on it."""

from pathlib import Path

import torch

from vcr_zoo.features import data_config, load_model

TOLERANCE = 1e-4  # of the largest logit: other kernels, other order of additions


def export(name: str, path: Path, batch: int = 3) -> float:
    """Write a network as ONNX with a batch of any size; the largest difference between logits.

    Args:
        name: what `load_model` takes.
        path: the file; it is written only if the outputs agree.
        batch: pictures to compare on.

    Raises:
        ImportError: without the extra.
        ValueError: if ONNX Runtime's logits differ from PyTorch's by more than TOLERANCE.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"export needs {error.name}: pip install 'vcr_zoo[onnx]'") from error
    model = load_model(name)
    shape = data_config(model)["input_size"]
    x = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
    part = path.with_name(path.name + ".part")
    program = torch.onnx.export(
        model,
        (x[:2],),
        dynamo=True,
        input_names=["pictures"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    try:
        program.save(str(part), external_data=False)
        onnx.checker.check_model(str(part))
        session = onnxruntime.InferenceSession(str(part), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"pictures": x.numpy()})
        with torch.inference_mode():
            logits = model(x)
        difference = (torch.from_numpy(found) - logits).abs().max().item()
        if not difference <= TOLERANCE * max(1.0, logits.abs().max().item()):
            raise ValueError(f"ONNX Runtime's logits differ by {difference:.2g}: not exported")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return difference
