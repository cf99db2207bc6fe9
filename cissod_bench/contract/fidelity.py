"""What no setting tells: where the training is not Soft Teacher's release, and what profile "official" leaves out.

`settings.departures` lists the settings that differ from the paper's; these lists hold for every preset and run.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# What -> how it is here, how in the release of Soft Teacher, and why.
NOT_SOFT_TEACHERS: Mapping[str, str] = MappingProxyType(
    {
        "batches": "1 labelled and 4 unlabelled images per GPU, as the paper says; the release draws for each image "
        "whether it is labelled, with probability 1/5",
        "orientation": "drawn for labelled and for unlabelled images apart, as they are padded apart; the release "
        "fills a batch with one orientation, which ties the two distributions together",
        "schedule": "learning rate / 10 after 75 % and 90 % of T, as the paper says; the release after 120 000 and "
        "160 000 of 180 000 iterations",
        "teacher's update": "after the optimiser's step, as in mmdet; the release updates before the next step, with "
        "the same ramp",
        "pseudo boxes": "go to the strong view by way of the original image and are clipped in both; the release goes "
        "straight and clips once",
        "scored model": "the teacher, as in the paper's release; Soft Teacher's scores the student. Both are recorded",
    }
)

# Difference between the paper and its released code (D: this project's number of it) -> what is left out.
NOT_REPRODUCED: Mapping[str, str] = MappingProxyType(
    {
        "D8": "1e-5 added to all probabilities before every formula",
        "D12": "the last R mod 64 of R proposals are missing off the diagonal of G",
        "D15": "learning rate steps: none in the release's MS-COCO settings, 140 000 and 160 000 on LVIS; --set "
        "milestones=... sets them",
        "D16": "rebuilds every 16 000 iterations (36 000 on Objects365) and a pool that is emptied every 4 000; --set "
        "generations=... sets the first",
        "D17": "the first rebuild reads an empty pool, so that CrS begins at the second",
        "D25": "class scores, thresholds and pools that differ between ranks and are lost on resume; here all ranks "
        "hold the scores of an average one",
        "D26": "the same order of D_l in every generation",
        "D27": "a pool left by an earlier run is read at the start",
        "D28": "images of D_u without ground truth are dropped, which reads hidden labels",
        "RFS on LVIS": "only the class of an image's last annotation counts for its repeat factor",
        "batches": "each image of a batch is labelled with probability 1/5; here 1 + 4, as the paper says",
    }
)


# What the paper leaves open -> what profile "paper" takes.
LEFT_OPEN: Mapping[str, str] = MappingProxyType(
    {
        "focal loss": "gamma = 1, as in the released code: the text names the loss alone",
        "theta^c": "the released code's form: the formula of Nie et al. could not be checked; its running score begins "
        "as the mean of 1000 detections",
        "targets of Eq. 6-7": "at least 0.001, for ln t needs t > 0; a class without proposals, 0 / 0 in Eq. 6, keeps "
        "its weight",
        "eta_p": "taken for the running score of theta^c; the text does not say what it averages",
        "L_align": "SGD of its own with rate 0.01 and momentum 0.9, whatever optimiser the detector has",
    }
)


def points_of(profile: str) -> Mapping[str, str]:
    """Return where a profile is not what its name says: what -> how it is; empty for "default"."""
    return {"official": NOT_REPRODUCED, "paper": LEFT_OPEN}.get(profile, {})
