"""MS-COCO split 1 (Sec. 4.1): the 20 PASCAL VOC classes are the minority.

D_s is drawn by ``uniform``: minority classes keep their natural proportions, so person far exceeds its ten boxes. On
the real boxes that meets the released counts (324 images, 1403 minority boxes), which ``useful`` misses by a factor 3.
"""

from cissod_bench.splitting.scenarios import draw_by_minority
from cissod_bench.splitting.task import Task

COCO = "http://images.cocodataset.org/annotations/annotations_trainval2017.zip (cocodataset.org, MS-COCO 2017)"
TRAIN_IMAGES = "http://images.cocodataset.org/zips/train2017.zip (cocodataset.org)"
VAL_IMAGES = "http://images.cocodataset.org/zips/val2017.zip (cocodataset.org)"

TASK = Task(
    title="MS-COCO split 1",
    source="Sec. 4.1, scenario 1",
    inputs={"train": "coco/annotations/instances_train2017.json", "val": "coco/annotations/instances_val2017.json"},
    images={"train": "coco/train2017", "val": "coco/val2017"},
    groups=("maj", "min"),
    draw=draw_by_minority,
    iterations=180_000,  # Sec. 4.2
    repeat_threshold=0.1,
    crs_gamma=0.5,  # Sec. 4.2
    minority=(
        "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "boat", "bird", "cat",
        "dog", "horse", "sheep", "cow", "bottle", "chair", "couch", "potted plant", "dining table", "tv",
    ),
    cover="uniform",
    exif="ignore",  # boxes refer to the stored pixels
    official={"train": COCO, "val": COCO, "train_images": TRAIN_IMAGES, "val_images": VAL_IMAGES},
)  # fmt: skip
