"""The most probable classes of each row: in the graph, in the gate, and for whoever asks a file."""

import csv
import json

import convolved
import numpy as np
import onnx
import pytest
import torch
from files import read
from hypothesis import given
from hypothesis import strategies as st
from profiled import NAMES as CLASS_NAMES
from profiled import log_softmax, logits, model_of
from simplex import projection

from smx_export import FileError, OnnxClassifier, Profile, check_parity, export_onnx
from smx_export.__main__ import main
from smx_export.artifact.comparison import Expected, compare
from smx_export.artifact.files import sealed
from smx_export.commands import DONE
from smx_export.targets import NAMES, NotInstalled, target
from smx_export.targets.matrix import matrix
from smx_export.targets.selftest import selftest
from smx_lightning import InputError, SoftmaxRegression
