"""MS-COCO split 2 (Sec. 4.1): a fixed list of 40 of the 80 classes is the minority.

D_s is drawn by ``useful``: on the real boxes that meets the released counts (205 images, 600 minority boxes), while
``uniform`` needs thousands of images before the rarest class has its ten boxes.
"""

from cissod_bench.splitting.scenarios import draw_by_minority
from cissod_bench.splitting.task import Task

from .coco_split1 import COCO, TRAIN_IMAGES, VAL_IMAGES

TASK = Task(
    title="MS-COCO split 2",
    source="Sec. 4.1, scenario 1",
    inputs={"train": "coco/annotations/instances_train2017.json", "val": "coco/annotations/instances_val2017.json"},
    images={"train": "coco/train2017", "val": "coco/val2017"},
    groups=("maj", "min"),
    draw=draw_by_minority,
    iterations=180_000,  # Sec. 4.2
    repeat_threshold=0.1,
    crs_gamma=0.5,  # Sec. 4.2
    minority=(
        "airplane", "bus", "boat", "traffic light", "fire hydrant", "parking meter", "bird", "cat", "horse",
        "sheep", "cow", "elephant", "zebra", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis",
        "snowboard", "baseball glove", "wine glass", "banana", "apple", "sandwich", "broccoli", "hot dog",
        "pizza", "bed", "dining table", "tv", "mouse", "remote", "keyboard", "oven", "refrigerator", "book",
        "vase", "hair drier", "toothbrush",
    ),
    cover="useful",
    exif="ignore",  # boxes refer to the stored pixels
    official={"train": COCO, "val": COCO, "train_images": TRAIN_IMAGES, "val_images": VAL_IMAGES},
)  # fmt: skip
