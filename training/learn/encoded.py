"""Rows as tensors: fits the preprocessing, and applies it."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
import torch

from model.embeddings import learn_bins
from model.preprocessing import Preprocessing
from training.learn.datamodule import Rows
from training.learn.inputs import Inputs
from training.learn.purchase_features import learn_process
from training.learn.resolved import FitSettings, ResolvedSettings

AT_ONCE = 65_536
"""Rows preprocessed at a time, since the float64 intermediates of millions of rows would fill the memory."""


@dataclass(frozen=True)
class EncodedRows:
    """The training rows as the network reads them, with everything that was fitted to encode them."""

    frame: pd.DataFrame
    settings: ResolvedSettings
    inputs: Inputs
    preprocessing: Preprocessing
    tensors: Rows
    bins: list[list[float]]
    """Edges of the bins of the numeric embedding, for each input."""

    @classmethod
    def of(cls, frame: pd.DataFrame, settings: ResolvedSettings) -> Self:
        """Fits inputs, preprocessing and bins to the rows `frame` alone, and encodes them."""
        inputs = Inputs.learn(frame, settings.spec)
        preprocessing = learn_preprocessing(frame, inputs, settings)
        rows = tensors(frame, inputs, preprocessing)
        return cls(frame, settings, inputs, preprocessing, rows, learn_bins(rows[0], settings.model))


def learn_preprocessing(train: pd.DataFrame, inputs: Inputs, settings: FitSettings) -> Preprocessing:
    """The preprocessing, fitted to the training rows alone."""
    numeric, model = inputs.encode(train)[0], settings.model
    process = learn_process(train, numeric, settings)
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
