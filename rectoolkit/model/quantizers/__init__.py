"""Quantizers: real rows to integer codes, and the gradient that trains through them. One method, one file."""

from rectoolkit.model.quantizers.base import Bits, OneBit, Quantizer, SignQuantizer
from rectoolkit.model.quantizers.bgch import BGCH
from rectoolkit.model.quantizers.bigear import BiGeaR
from rectoolkit.model.quantizers.dorefa import DoReFa
from rectoolkit.model.quantizers.float32 import Float32
from rectoolkit.model.quantizers.gste import GSTE
from rectoolkit.model.quantizers.hashgnn import HashGNN
from rectoolkit.model.quantizers.hashnet import HashNet
from rectoolkit.model.quantizers.itq import ITQ
from rectoolkit.model.quantizers.lsq import LSQ
from rectoolkit.model.quantizers.pact import PACT
from rectoolkit.model.quantizers.rotate_sign import RotateSign
from rectoolkit.model.quantizers.round import Round
from rectoolkit.model.quantizers.ste import STE
from rectoolkit.model.quantizers.uniform import UniformQuantizer

__all__ = [
    "BGCH",
    "GSTE",
    "ITQ",
    "LSQ",
    "PACT",
    "STE",
    "BiGeaR",
    "Bits",
    "DoReFa",
    "Float32",
    "HashGNN",
    "HashNet",
    "OneBit",
    "Quantizer",
    "RotateSign",
    "Round",
    "SignQuantizer",
    "UniformQuantizer",
]
