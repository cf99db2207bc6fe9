"""LVIS (Sec. 4.1): 10 % of the images are labelled, and labelled and unlabelled images share one long tail.

There is no minority by list: classes are rare, common or frequent by the number of images that show them in D_l
(Sec. 4.3). LVIS's own frequencies, counted on its whole training set, are the view "official".

Training ignores that LVIS is annotated class by class and not exhaustively, as the paper's code does; scoring honours
it. Images are named by their ``coco_url``: training images are MS-COCO train2017's, val images are train2017's and
val2017's. So a detector trained on MS-COCO has seen most of the val images, with their boxes: never start from one.
"""

from cissod_bench.splitting.scenarios import draw_by_frequency
from cissod_bench.splitting.task import Task

from .coco_split1 import TRAIN_IMAGES, VAL_IMAGES

LVIS = "https://www.lvisdataset.org/dataset (LVIS v1)"

TASK = Task(
    title="LVIS",
    source="Sec. 4.1, scenario 2",
    inputs={"train": "lvis/annotations/lvis_v1_train.json", "val": "lvis/annotations/lvis_v1_val.json"},
    images={"train": "coco", "val": "coco"},
    groups=("f", "c", "r"),
    draw=draw_by_frequency,
    iterations=180_000,  # Sec. 4.2
    metric="lvis",
    repeat_threshold=0.01,
    crs_gamma=0.05,  # Sec. 4.2
    cover=None,
    frequency_bounds=(10, 100),  # Sec. 4.3
    draw_defaults={"min_instances": 1},
    naming="coco_url",
    exif="ignore",  # MS-COCO's images
    official={
        "train": LVIS,
        "val": LVIS,
        "train_images": TRAIN_IMAGES,
        "val_images": f"{TRAIN_IMAGES} and {VAL_IMAGES}",
    },
)
