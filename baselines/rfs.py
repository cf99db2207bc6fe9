"""RFS (Gupta et al., CVPR 2019) on Soft Teacher: images of D_l with rare classes are drawn more often, D_u uniformly.

r_c = max(1, sqrt(t / f_c)) for a class in the share f_c of D_l's images, r_i = max of r_c over an image's classes, and
ceil(r_i) copies of image i (``cissod_bench/contract/repeat_factors.py``). t is the task's: the paper states none, the
released settings have 0.1 on MS-COCO, 0.02 on MS-COCO -> Objects365 and 0.01 on LVIS.
"""

from __future__ import annotations

from cissod_bench.contract.method import Method, RunFacts
from cissod_bench.contract.parts import Context, Copies, Parts
from cissod_bench.contract.repeat_factors import labelled_copies


class RepeatFactorSampling(Parts):
    """Soft Teacher with repeat factors on D_l; they are the same in every generation.

    Args:
        facts: of the run.
    """

    def __init__(self, facts: RunFacts) -> None:
        super().__init__(len(facts.classes), facts.settings.theta)
        self._copies = labelled_copies(facts.labelled_classes, self.num_classes, facts.task.repeat_threshold)

    def copies(self, context: Context) -> Copies:
        """Return the copies of source 0, D_l."""
        return {0: self._copies}


METHOD = Method(
    title="RFS",
    source="Sec. 4.3, Tables 1-3",
    summary="draws images of D_l with rare classes more often",
    citation="A. Gupta, P. Dollár, R. Girshick: LVIS: A Dataset for Large Vocabulary Instance Segmentation. CVPR 2019.",
    parts=RepeatFactorSampling,
    reported={
        "coco-split1": {"all": 23.9, "maj": 30.2, "min": 4.8},
        "coco-split2": {"all": 19.8, "maj": 32.3, "min": 7.2},
        "coco-o365": {"all": 7.2, "maj": 23.1, "min": 2.9},
        "lvis": {"all": 8.0, "f": 23.1, "c": 12.7, "r": 2.3},
    },
    departures=(
        "t = 0.1, made for 80 classes, also on the tasks with few (toy, voc-animals): there a class is in more of the "
        "images, so that those with a minority class are drawn 2 to 3 times, on MS-COCO 10 to 14 times",
    ),
)
