"""Layers, models and losses as modules."""

from nanonet.nn.activation import (
    ACTIVATIONS,
    ELU,
    GELU,
    Identity,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    activation,
)
from nanonet.nn.conv import Conv1d, Conv2D, Conv2d, ConvTranspose2d
from nanonet.nn.dropout import Dropout
from nanonet.nn.flatten import Flatten
from nanonet.nn.linear import Dense, Linear
from nanonet.nn.loss import BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, HuberLoss, L1Loss, MSELoss, NLLLoss
from nanonet.nn.module import Module
from nanonet.nn.norm import BatchNorm, BatchNorm1d, BatchNorm2d, BatchNormalization, GroupNorm, LayerNorm, RMSNorm
from nanonet.nn.parameter import Buffer, Parameter
from nanonet.nn.pool import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AveragePooling2D,
    AvgPool1d,
    AvgPool2d,
    GlobalAveragePooling2D,
    GlobalAvgPool1d,
    GlobalAvgPool2d,
    MaxPool1d,
    MaxPool2d,
    MaxPooling2D,
)
from nanonet.nn.residual import Residual
from nanonet.nn.sequential import Sequential

__all__ = [
    "ACTIVATIONS",
    "ELU",
    "GELU",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AveragePooling2D",
    "AvgPool1d",
    "AvgPool2d",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNormalization",
    "Buffer",
    "Conv1d",
    "Conv2D",
    "Conv2d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalAvgPool1d",
    "GlobalAvgPool2d",
    "GroupNorm",
    "HuberLoss",
    "Identity",
    "L1Loss",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPooling2D",
    "Module",
    "NLLLoss",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "activation",
]
