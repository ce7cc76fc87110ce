"""A training script with the contract of timm's: it asks timm for a task and owns everything else.

Stands in for the real one, which is not packaged, in test_timm_script.py.
"""

import argparse

import torch
from timm.models import create_model
from timm.task import ClassificationTask, resume_task_checkpoint

parser = argparse.ArgumentParser()
parser.add_argument("data")
parser.add_argument("--model", default="test_resnet")
parser.add_argument("--model-ema", action="store_true")
parser.add_argument("--output", default="")
parser.add_argument("--experiment", default="")
parser.add_argument("--seed", type=int, default=42)
parser.add_argument("--resume", default="")


def main():
    args = parser.parse_args()
    torch.manual_seed(0)
    model = create_model(args.model, num_classes=3)
    task = ClassificationTask(model=model, criterion=torch.nn.CrossEntropyLoss(), verbose=False)
    optimizer = torch.optim.SGD(task.get_trainable_module().parameters(), lr=0.1)
    if args.resume:
        resume_task_checkpoint(task, args.resume, optimizer)
    if args.model_ema:
        task.setup_ema(decay=0.9)
    model.train()
    for step in range(60):
        x = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(step))
        result = task(x, torch.arange(8) % 3)
        result["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        task.update_ema(step=step)
    torch.save({**task.get_checkpoint_state(), "loss": result["loss"].item()}, args.data)
