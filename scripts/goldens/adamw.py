#!/usr/bin/env python3
"""Writes test/kernels/adamw_golden.h: three steps of LibTorch's fused AdamW on the CPU, bit by bit.

Sixteen elements, so that all of them go through its vectors. Run by hand: python scripts/goldens/adamw.py
"""
import pathlib

import numpy as np
import torch

N = 16
OUT = pathlib.Path(__file__).resolve().parents[2] / "test/kernels/adamw_golden.h"


def start(i):
    return ((i * 37 + 11) % 64 - 32).astype(np.float32) / np.float32(7)


def gradient(i, step):
    return ((i * 53 + step * 29 + 7) % 128 - 64).astype(np.float32) / np.float32(11)


def after_three_steps(lr, beta1, beta2, weight_decay, eps):
    i = np.arange(N)
    master = torch.from_numpy(start(i))
    first, second = torch.zeros(N), torch.zeros(N)
    for step in (1, 2, 3):
        torch._fused_adamw_([master], [torch.from_numpy(gradient(i, step))], [first], [second], [],
                            [torch.tensor(float(step))], lr=lr, beta1=beta1, beta2=beta2, weight_decay=weight_decay,
                            eps=eps, amsgrad=False, maximize=False)
    return master, first, second


def row(x):
    return "{" + ", ".join(float(v).hex() + "f" for v in x) + "}"


def main():
    settings = [(2e-5, 0.9, 0.95, 0.0, 1e-8), (1e-2, 0.9, 0.999, 0.1, 1e-8), (0.3, 0.25, 0.5, 0.01, 1e-3)]
    lines = ["// Written by scripts/goldens/adamw.py: LibTorch's fused AdamW after three steps.", "#pragma once", "",
             "struct AdamWGolden {", "  double lr, beta1, beta2, weight_decay, eps;",
             f"  float master[{N}], first[{N}], second[{N}];", "};", "", "// clang-format off",
             "constexpr AdamWGolden kAdamWGoldens[] = {"]
    for s in settings:
        lines.append("    {" + ", ".join(repr(v) for v in s) + ",")
        lines.append(",\n".join("     " + row(x) for x in after_three_steps(*s)) + "},")
    OUT.write_text("\n".join(lines + ["};", "// clang-format on", ""]))


if __name__ == "__main__":
    main()
