"""What the Hub reads of a card: its YAML head, and the files in .eval_results."""

import timm
import yaml

from vcr_zoo.results import Result

from .evidence import Evidence
from .words import of

# Our data sets that have a repository on the Hub.
ON_HUB = {"fmnist": "zalando-datasets/fashion_mnist"}
ACCURACIES = ("eval", "probe", "knn", "fewshot")  # protocols whose main metric is an accuracy


def metadata(found: Evidence) -> str:
    """The card's head, between its two lines of dashes."""
    entry, recipe = found.entry, found.recipe
    task = "image-classification" if entry.num_classes else "image-feature-extraction"
    head = {
        "license": entry.license,
        "library_name": "timm",
        "pipeline_tag": task,
        "tags": [task, "timm", "transformers", "vcr_zoo"],
    }
    if recipe["dataset"] in ON_HUB:
        head["datasets"] = [ON_HUB[recipe["dataset"]]]
    timms = recipe["pretrained"] and not (recipe["pretrained_path"] or recipe["initial_checkpoint"])
    base = timm.get_pretrained_cfg(recipe["model"]) if timms else None
    if base and base.hf_hub_id:
        head["base_model"] = base.hf_hub_id
    if stated := accuracies(found):
        head["model-index"] = [{"name": entry.name, "results": [row(r) for r in stated]}]
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=100)}---\n"


def accuracies(found: Evidence) -> list[Result]:
    """The accuracies of the published weights."""
    stated = found.published(found.entry.name).values()
    return [r for r in stated if r.protocol in ACCURACIES]


def row(result: Result) -> dict:
    """One result as the Hub's model-index has it."""
    level = result.settings.get("level", "fine")
    dataset = {"name": f"{result.data} ({level} labels)", "split": "test"}
    dataset["type"] = ON_HUB.get(result.data, result.data)
    return {
        "task": {"type": "image-classification", "name": "Image Classification"},
        "dataset": dataset,
        "metrics": [
            {"type": "accuracy", "value": round(result.value, 6), "name": of(result).label}
        ],
    }


def eval_results(found: Evidence) -> dict[str, str]:
    """`.eval_results/NAME.yaml` for each data set that the Hub has, of its own classes: file ->
    content.

    The Hub shows them for benchmarks that it lists.
    """
    files: dict[str, list[dict]] = {}
    for result in accuracies(found):
        if result.data in ON_HUB and result.settings.get("level", "fine") == "fine":
            entry = {
                "dataset": {
                    "id": ON_HUB[result.data],
                    "task_id": f"{result.protocol}-{result.metric}",
                },
                "value": round(100 * result.value, 4),
                "notes": f"{of(result).label}; {result.command}",
            }
            files.setdefault(f".eval_results/{result.data}.yaml", []).append(entry)
    return {name: yaml.safe_dump(rows, sort_keys=False) for name, rows in files.items()}
