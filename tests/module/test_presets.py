"""Presets survive JSON, and other networks take the place of denoiser and mask network."""

from __future__ import annotations

import json

import pytest

from unlasting.module import PRESETS, NetworkTraining, Preset
from unlasting.nn import Architecture


def test_presets_survive_json():
    changed = PRESETS["paper"].replace(
        width=8, train_mask=NetworkTraining(3, 2, 0.1, 0.0, 0.5), denoiser=Architecture(heads=3, dropout=0.25)
    )
    for preset in (*PRESETS.values(), changed):
        assert Preset.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset


def test_options_are_refused_with_a_hint():
    with pytest.raises(TypeError, match="unknown option 'widht'.*'width'"):
        PRESETS["default"].replace(widht=3)
    with pytest.raises(ValueError, match="`solver` is 'eulr'; choose one of"):
        PRESETS["default"].replace(solver="eulr")
    with pytest.raises(ValueError, match="`preset` is 'papr'.*'paper'"):
        Preset.named("papr")
