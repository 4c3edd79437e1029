"""Key names that `unlasting` reads and writes."""

from typing import Final

UNS_KEY: Final = "unlasting"
SPLIT_KEY: Final = "unlasting_split"
PREDICTION_KEY: Final = "unlasting"
COUNTS_LAYER: Final = "counts"

TRAIN: Final = "train"
VAL: Final = "val"
TEST: Final = "test"
SPLITS: Final = (TRAIN, VAL, TEST)
