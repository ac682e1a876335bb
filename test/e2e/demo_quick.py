#!/usr/bin/env python3
"""End to end through the real program: `scripts/demo --quick` into a temporary folder, its results checked.

The thresholds are loose: they tell an extended context from a broken one, not a good setting from a better one.
"""
import json
import re
import sys

from support.demo import run_twice

NAMES = ["base", "pi", "lora", "longlora", "finish", "full"]


def expect(condition, message):
    if not condition:
        sys.exit(f"demo_quick: {message}")


def check(out):
    results = json.loads((out / "results.json").read_text())
    base = results["base_context"]
    contexts = [base // 2, base, 2 * base, 4 * base, 8 * base]
    found = [(row["name"], row["context"]) for row in results["rows"]]
    expect(found == [(name, context) for name in NAMES for context in contexts], f"rows are {found}")
    ppl = {(row["name"], row["context"]): row["ppl"] for row in results["rows"]}
    expect(all(1 < value < 2000 for value in ppl.values()), f"perplexities are {ppl}")
    long = 4 * base
    print({name: round(ppl[name, long], 2) for name in NAMES})
    # A base of half a minute: measured 0.93, 0.90, 0.88 of the base's perplexity and 0.78, 0.76, 0.75 of base + PI's.
    for name in ("longlora", "finish", "full"):
        expect(ppl[name, long] < 0.96 * ppl["base", long], f"{name} at {long} is not clearly below the base")
        expect(ppl[name, long] < 0.85 * ppl["pi", long], f"{name} at {long} is not clearly below base + PI")
    expect(ppl["finish", long] < 1.1 * ppl["full", long], f"the finish at {long} is not near full-attention training")
    expect(ppl["finish", base] < 1.3 * ppl["base", base], f"the extended model is much worse than the base at {base}")
    expect(abs(results["merged_ppl"] / ppl["finish", long] - 1) < 0.01, "the merged model differs from base + adapter")
    page = (out / "report.html").read_text(encoding="utf-8")
    expect("<svg" in page and page.count("<polyline") == len(NAMES), "the page lacks its curves")
    expect(not re.search(r"(src|href)=|url\(|@import", page), "the page refers to something outside itself")


def main():
    run_twice("scripts/demo", [], check)
    print("demo_quick: passed")


if __name__ == "__main__":
    main()
