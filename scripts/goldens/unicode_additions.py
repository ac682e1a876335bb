#!/usr/bin/env python3
"""Writes core/text/unicode_additions.cpp: the code points that Unicode gained after version 14, with their categories.

Debian 12's PCRE2 knows Unicode 14 and utf8proc 15, while the expressions of a tokenizer.json are run by the reference
library with Unicode 16. The categories are asked from that library itself. Run by hand with Python 3.11 (whose
`unicodedata` is version 14) in an environment with `tokenizers`.
"""
import unicodedata
from pathlib import Path

from tokenizers import Regex, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Cf".split()
HEAD = """// Code points assigned in Unicode 15.0, 15.1 and 16.0, which the system's PCRE2 (Unicode 14) does not know yet.
// Made by scripts/goldens/unicode_additions.py; do not edit.
#include "core/text/unicode_additions.h"

namespace longlora::text {

namespace {
constexpr UnicodeAddition kAdditions[] = {
"""
TAIL = """};
}  // namespace

std::span<const UnicodeAddition> unicode_additions() { return kAdditions; }

}  // namespace longlora::text
"""


def main():
    assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version
    new = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c)) == "Cn"]
    found = []
    for category in CATEGORIES:
        split = pre_tokenizers.Split(Regex(r"\p{%s}" % category), "removed")
        found += [(c, category) for c in new if not split.pre_tokenize_str(chr(c))]
    ranges = []
    for c, category in sorted(found):
        if ranges and ranges[-1][1] == c - 1 and ranges[-1][2] == category:
            ranges[-1][1] = c
        else:
            ranges.append([c, c, category])
    lines, line = [], "   "
    for first, last, category in ranges:
        item = f" {{0x{first:X}, 0x{last:X}, \"{category}\"}},"
        if len(line) + len(item) > 108:
            lines.append(line)
            line = "   "
        line += item
    lines.append(line)
    out = Path(__file__).resolve().parents[2] / "core" / "text" / "unicode_additions.cpp"
    out.write_text(HEAD + "\n".join(lines) + "\n" + TAIL)
    print(f"{len(found)} code points in {len(ranges)} ranges")


if __name__ == "__main__":
    main()
