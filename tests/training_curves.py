"""Curves of the training problem that state the largest SNR they were measured at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CORRECTED = {"scale": 18.67, "ratio_slope": 1.52, "snr_slope": 0.03, "offset": 3.69}
STEEP = {"scale": 4.93, "ratio_slope": 901.0, "snr_slope": 29.1, "offset": 191.0}  # as of a network trained here
KINDS = {"corrected": CORRECTED, "steep": STEEP}


def write(folder: Path, name: str, parameters: dict[str, Any]) -> str:
    """The path of a new curve file with these parameters."""
    path = folder / f"{name}.json"
    made = {
        "name": name, "problem": "training", "kind": "synthetic", "quantity": "PSNR [dB]", "equation": "(57)",
        "parameters": parameters, "standard_errors": None, "points": [], "goodness": {}, "provenance": {},
    }  # fmt: skip
    path.write_text(json.dumps(made), encoding="utf-8")
    return str(path)


def limited(folder: Path, kind: str, max_snr_db: float) -> str:
    """The path of a curve of one of KINDS with a largest SNR [dB]."""
    return write(folder, f"{kind}_{max_snr_db:g}", KINDS[kind] | {"max_snr_db": max_snr_db})
