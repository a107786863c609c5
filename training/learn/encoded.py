"""Rows as tensors: fits the preprocessing, and applies it."""

import numpy as np
import pandas as pd
import torch

from features.spec import FeaturesConfig
from model.config import ModelConfig
from model.preprocessing import Preprocessing
from training.learn.datamodule import Rows
from training.learn.inputs import Inputs
from training.learn.purchase_features import learn_process
from training.learn.split import Shape

AT_ONCE = 65_536
"""Rows preprocessed at a time, since the float64 intermediates of millions of rows would fill the memory."""


def learn_preprocessing(
    train: pd.DataFrame, inputs: Inputs, spec: FeaturesConfig, model: ModelConfig, shape: Shape
) -> Preprocessing:
    """The preprocessing, fitted to the training rows alone."""
    numeric = inputs.encode(train)[0]
    process = learn_process(train, numeric, spec, model, shape)
    return Preprocessing.fit(numeric, model.log1p, model.scaling, process)


def tensors(rows: pd.DataFrame, inputs: Inputs, preprocessing: Preprocessing) -> Rows:
    """Preprocessed numbers [B, inputs], category codes [B, C] and labels [B] of `rows`."""
    numeric, codes = inputs.encode(rows)
    preprocessed = torch.empty(len(rows), preprocessing.outputs)
    for start in range(0, len(rows), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        preprocessed[part] = preprocessing(torch.from_numpy(numeric[part]))
    churned = torch.from_numpy(rows["churned"].to_numpy(dtype=np.float32))
    return preprocessed, torch.from_numpy(codes), churned
