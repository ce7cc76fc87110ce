"""What four papers claim, what they report, and what is measured of it here: data, to be read."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vcr_zoo.training.options import continues
from vcr_zoo.transfer.several import JOINED, LONG, SHORT

from .bearing import (
    Known,
    Row,
    arms,
    beside,
    beside_norm,
    chosen_depth,
    coarse,
    deeper_with_less,
    first_of,
    long_tailed,
    members,
    methods,
    pairs,
    simclr,
    starved,
    supervised,
    times_less,
    vicreg,
)


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, and what here bears on it."""

    says: str
    reported: str
    measured: Callable[[Known], Iterable[Row]]
    command: str = "vcr-zoo pair NAME --against CONTROL"


@dataclass(frozen=True)
class Paper:
    """A paper, and what is tried of it."""

    title: str
    arxiv: str
    claims: tuple[Claim, ...]


BY_DEPTH = (
    "vcr-zoo depth test_resnet.vcr_fmnist4 --data silhouettes --sizes 100 500 2000 "
    "--seeds 0 1 2 3 4 --test 1000 --lr 1e-2 --budget 4"
)
BY_CONCAT = (  # of runs that docs/transfer.md trains
    "name=runs/concat/test_resnet.base_fmnist4; vcr-zoo concat $name-a{seed} $name-b{seed} "
    "--long $name-long{seed} --data silhouettes --seeds 0 1 2 3 4"
)
BY_MEMBERS = (
    "for k in base vcr; do name=runs/concat/test_resnet.${k}_fmnist4; "
    "vcr-zoo concat $name-a{seed} $name-b{seed} --data silhouettes --seeds 0 1 2 3 4; done"
)
BY_STEP = (
    "for n in 0 1 2 3 4; do vcr-zoo bench step --model NAME --size PIXELS --batch IMAGES "
    "--repeats 3 --seed $n --results FILE; done"
)
BY_SEARCH = (
    "for s in vcr decov wld; do vcr-zoo search test_resnet.base_fmnist4 --space $s --budget 16 "
    "--epochs 4 --jobs 2 --confirm 1 2 3 4 5 --output runs/search4; done"
)
BY_FINETUNE = (
    "vcr-zoo finetune test_resnet.base_fmnist4 test_resnet.vcr_fmnist4 --data silhouettes digits8 "
    "mnist --method full dr-tune --size 200 --test 1000 --budget 6 --epochs 6 --lr 2e-3 "
    "--batch-size 16 --seeds 0 1 2 3 4 "
    "--set head_epochs=1 views=4 hflip=0.0 'input_size=[3, 32, 32]'"
)
BY_JOINED = (  # of two runs of the same loop
    "name=runs/concat/test_resnet.base_fmnist4; vcr-zoo finetune $name-a{seed}+$name-b{seed} "
    "--data silhouettes --method full two-stage --size 200 --test 1000 "
    "--seeds 0 1 2 3 4 --budget 4 --epochs 60 --lr 2e-3 --batch-size 16 "
    "--set head_epochs=1 views=4 hflip=0.0 'input_size=[3, 32, 32]'"
)
PAPERS = (
    Paper(
        "Variance-Covariance Regularization Improves Representation Learning",
        "2306.13292",
        (
            Claim(
                "features of supervised networks transfer better by linear probe",
                "mean of 8 sets: ResNet-50 +5.63, ConvNeXt-T +0.96, ViT-B/32 +0.99 (2nd)",
                pairs("probe", "top1", False, supervised),
            ),
            Claim("and from few pictures", "", pairs("fewshot", "5-shot", False, supervised)),
            Claim(
                "and those of trained weights that continue with it (no claim of the paper's)",
                "",
                pairs("probe", "top1", False, continues),
            ),
            Claim(
                "the source's accuracy does not suffer",
                "",
                pairs("eval", "top1", True, supervised, sign=0),
            ),
            Claim(
                "trained on super-classes, features tell sub-classes apart better",
                "CIFAR-100, 20 to 100 classes: 60.7 to 72.9 (2nd)",
                pairs("probe", "top1", True, coarse),
            ),
            Claim(
                "a long-tailed source is learned better",
                "CIFAR10-LT +1.6, CIFAR100-LT +3.0 (2nd)",
                pairs("eval", "top1", True, long_tailed),
            ),
            Claim(
                "SimCLR's features transfer better",
                "mean of 8 sets: 60.09 to 61.63 (2nd)",
                pairs("probe", "top1", False, simclr),
            ),
            Claim(
                "SimCLR's probe of the source does not suffer",
                "ImageNet: 67.2 to 67.1 (2nd)",
                pairs("probe", "top1", True, simclr, sign=0),
            ),
            Claim(
                "VICReg's features transfer better",
                "mean of 8 sets: 56.03 to 57.10 (2nd)",
                pairs("probe", "top1", False, vicreg),
            ),
            Claim(
                "classes collapse less: their normalized variance (CDNV) is larger",
                "ConvNeXt: 0.28 to 0.56 (2nd)",
                pairs("collapse", "cdnv", True, supervised),
            ),
            Claim(
                "classes collapse less: fewer pictures are nearest to their own class's mean (a "
                "minus is for it)",
                "ConvNeXt: 0.99 to 0.81 (2nd)",
                pairs("collapse", "ncc", True, supervised, sign=-1),
            ),
            Claim(
                "features share more information (here with the labels, a lower bound in nats)",
                "2.8 to 4.6, by MINE, of variables that could not be read (2nd)",
                pairs("information", "nats", True, supervised),
            ),
            Claim(
                "Gaussian noise in the pictures takes less of the accuracy (points taken: a minus "
                "is for it)",
                "",
                pairs("noise", "lost", True, supervised, sign=-1),
            ),
            Claim(
                "features transfer better than after DeCov (each as one search chose it on "
                "validation; what it chose for VCR costs the source more: docs/search.md)",
                "mean of 8 sets: ResNet-50 +5.63, with DeCov at most +1.5 or so (2nd)",
                beside("decov"),
                BY_SEARCH,
            ),
            Claim(
                "and than after WLD-Reg",
                "mean of 8 sets: ResNet-50 +5.63, with WLD-Reg at most +1.5 or so (2nd)",
                beside("wld"),
                BY_SEARCH,
            ),
            Claim(
                "gradients starve less: of two features that tell the class, the one learned late "
                "ranks classes better (area under the ROC curve; ten networks, one draw of points)",
                "two moons: the boundary uses both coordinates (2nd)",
                starved,
                "vcr-zoo starvation --out runs/starvation",
            ),
            Claim(
                "a step takes no longer than with a BatchNorm at the same places (what that adds "
                "less what VCR adds, in hundredths of the plain step; default: samples in turns)",
                "similar (2nd)",
                beside_norm("sampled"),
                BY_STEP,
            ),
            Claim(
                "nor with all samples of all blocks in every step (in the same hundredths)",
                "similar (2nd)",
                beside_norm("exact"),
                BY_STEP,
            ),
            Claim(
                "in closed form it adds a fifth of the time that autograd takes, or less (what "
                "that adds less five times what this adds, in hundredths of the plain step; all "
                "samples)",
                "more than 5 times faster (2nd)",
                times_less,
                BY_STEP,
            ),
        ),
    ),
    Paper(
        "Optimal transfer protocol by incremental layer defrosting",
        "2303.01429",
        (
            Claim(
                "freezing all features is often not best: a depth chosen on validation does better "
                "(than a head trained by the same loop)",
                "histology from ImageNet, 13 of 17 frozen: +1.3 (figure)",
                chosen_depth(frozen=True),
                BY_DEPTH,
            ),
            Claim(
                "nor is fine-tuning everything: the depth chosen on validation does better",
                "histology from ImageNet, 13 of 17 frozen: +2.6 (figure)",
                chosen_depth(frozen=False),
                BY_DEPTH,
            ),
            Claim(
                "the best depth depends on how many pictures there are (here: with fewer pictures "
                "more blocks are best kept frozen; a choice among few pictures is noisier, which "
                "looks alike, so that this cannot speak)",
                "that it does (abstract); in which direction could not be read",
                deeper_with_less,
                BY_DEPTH,
            ),
        ),
    ),
    Paper(
        "These Are Not All the Features You Are Looking For",
        "2506.18221",
        (
            Claim(
                "several short runs joined transfer better than one long run of the same cost",
                "ResNet-50, 4 of 100k steps less 1 of 450k: iNat18 +9.2, CIFAR-100 +5.8 (figure)",
                arms(JOINED, LONG),
                BY_CONCAT,
            ),
            Claim(
                "and not because each run is shorter (the control that the paper lacks: "
                "joined less one short run)",
                "",
                arms(JOINED, SHORT),
                BY_CONCAT,
            ),
            Claim(
                "joined, networks pretrained with VCR transfer better than joined controls "
                "(no claim of the paper's)",
                "",
                members,
                BY_MEMBERS,
            ),
            Claim(
                "fine-tuned one by one, then with a joint head, joined networks do better than "
                "fine-tuned all at once",
                "2 of ResNet-50: iNat18 +2.5, CIFAR-100 +1.0 (figure)",
                methods("two-stage", "full"),
                BY_JOINED,
            ),
            Claim(
                "and than one network fine-tuned",
                "2 of ResNet-50: iNat18 +2.8, CIFAR-100 +1.5 (figure)",
                methods("two-stage", "full", first_of),
                BY_JOINED.replace("+$name-b{seed}", "").replace(" two-stage", ""),
            ),
        ),
    ),
    Paper(
        "DR-Tune",
        "2308.12058",
        (
            Claim(
                "DR-Tune does better than fine-tuning (equal rates being equal: its explicit form, "
                "each with the settings that validation chose)",
                "",
                methods("dr-tune", "full", implicit=False),
                BY_FINETUNE,
            ),
        ),
    ),
)
