"""Writes test/golden/eval/prompts.json: prompts and scores of the retrieval tasks as their reference implementations make them.

Written anew after the published protocols (LongLoRA's passkey_retrivial.py, Long-Context-Data-Engineering's
needle_in_haystack.py without its chat token, LongChat's longeval/utils.py, RULER's scripts/data/synthetic and
scripts/eval/synthetic), with numpy's own random numbers where LongLoRA draws them. Run by hand
in an environment with numpy (made with 2.4):
    python scripts/goldens/eval_prompts.py
"""
import json
import re
from pathlib import Path

import numpy

OUT = Path(__file__).resolve().parents[2] / "test/golden/eval/prompts.json"
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."


def passkey(length, seed):
    characters = int(3.75 * length // 1024 * 1024)
    numpy.random.seed(seed)
    before = numpy.random.randint(0, characters)
    key = numpy.random.randint(1, 50000)
    forever = " ".join([NOISE] * 5000)
    prompt = "\n".join([
        "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz you "
        "about the important information there.",
        forever[:before],
        f"The pass key is {key}. Remember it. {key} is the pass key.",
        forever[:characters - before],
        "What is the pass key? The pass key is"])
    return {"length": length, "seed": seed, "garbage": characters, "before": int(before), "key": str(key),
            "characters": len(prompt), "around": prompt[prompt.index("The pass key is") - 40:][:150], "end": prompt[-100:],
            **({"prompt": prompt} if length < 600 and seed == 0 else {})}


def haystack_prompt(context, question):
    return {"context": context, "question": question, "prompt": f"This is a very long story book: <book> {context} </book>.\n "
            f"Based on the content of the book, Question: {question}\nAnswer:"}


def lines(pairs, asked):
    text = ("Below is a record of lines I want you to remember. Each line begins with 'line <line index>' and contains a "
            "'<REGISTER_CONTENT>' at the end of the line as a numerical value. For each line index, memorize its "
            "corresponding <REGISTER_CONTENT>. At the end of the record, I will ask you to retrieve the corresponding "
            "<REGISTER_CONTENT> of a certain line index. Now the record start:\n\n")
    for name, value in pairs:
        text += f"line {name}: REGISTER_CONTENT is <{value}>\n"
    text += f"\nNow the record is over. Tell me what is the <REGISTER_CONTENT> in line {pairs[asked][0]}? I need the number."
    return {"lines": pairs, "asked": asked, "prompt": text, "answer": f" {pairs[asked][1]}"}


def topics(conversations, topic):
    return {"conversations": conversations, "topic": topic, "answer": f" {topic}", "prompt":
            f"Below is a record of our previous conversation on {len(conversations)} different topics. You are the ASSISTANT, "
            "and I am the USER. At the beginning of each topic, the USER will say 'I would like to discuss the topic of "
            "<TOPIC>'. Memorize each <TOPIC>. At the end of the record, I will ask you to retrieve the first topic. Now the "
            "record start. " + "".join(conversations) + " Now the record ends. What is the first topic(s) we discussed? Only "
            "give me the topic name. Do not summarize yourself."}


# RULER's template with its answer prefix; for one query of one value it is put into the singular by replacing words.
NIAH = ("Some special magic {type} are hidden within the following text. Make sure to memorize it. I will quiz you about the "
        "{type} afterwards.\n{context}\nWhat are all the special magic {type} for {query} mentioned in the provided text? "
        "The special magic {type} for {query} mentioned in the provided text are")


def niah(task, kind, haystack, sentences, needles, places, queries, answers, singular):
    if haystack == "prose":
        edges = [0, *places, len(sentences)]
        parts = []
        for i in range(1, len(edges)):
            parts.append(" ".join(sentences[edges[i - 1]:edges[i]]))
            if i - 1 < len(needles):
                parts.append(needles[i - 1])
        context = " ".join(parts)
    else:
        rows = list(sentences)
        for place, needle in sorted(zip(places, needles), reverse=True):
            rows.insert(place, needle)
        context = "\n".join(rows)
    template = NIAH
    if singular:
        for old, new in (("Some", "A"), ("are all", "is"), ("are", "is"), ("answers", "answer")):
            template = template.replace(old, new)
    query = ", ".join(queries[:-1]) + ", and " + queries[-1] if len(queries) > 1 else queries[0]
    return {"task": task, "haystack": haystack, "sentences": sentences, "needles": needles, "places": places,
            "queries": queries, "answers": answers, "context": context,
            "prompt": template.format(type=kind[:-1] if singular else kind, context=context, query=query)}


def needle(kind, key, value):
    return "One of the special magic {} for {} is: {}.".format(kind, key, value)


def vt(variables, value, noises, places):
    chain = [f"VAR {variables[0]} = {value}"] + [f"VAR {b} = VAR {a} " for a, b in zip(variables, variables[1:])]
    rows = [NOISE] * noises
    for j, place in enumerate(places):
        rows.insert(place + j, chain[j])
    context = "\n".join(rows).replace(". \n", ".\n")
    return {"variables": variables, "value": value, "noises": noises, "places": places, "context": context, "prompt":
            "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n" + context + "\nQuestion: "
            f"Find all variables that are assigned the value {value} in the text above. Answer: According to the chain(s) of "
            f"variable assignment in the text above, {len(variables)} variables are assigned the value {value}, they are: ",
            "shown": " " + " ".join(variables)}


def cwe(words, common):
    number = lambda some: " ".join(f"{i + 1}. {word}" for i, word in enumerate(some))
    return {"words": words, "common": common, "shown": " " + number(common), "prompt":
            "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that appear "
            f"most often.\n{number(words)}\nQuestion: What are the 10 most common words in the above list? Answer: The top 10 words "
            "that appear most often in the list are:"}


def zeta2():
    n = 1000  # Euler and Maclaurin
    return sum(1 / k**2 for k in range(1, n)) + 1 / n + 1 / (2 * n**2) + 1 / (6 * n**3)


def fwe(words, answers):
    return {"words": words, "answers": answers, "prompt":
            "Read the following coded text and track the frequency of each coded word. Find the three most frequently appeared "
            "coded words. " + " ".join(words) + "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What "
            "are the three most frequently appeared words in the above coded text? Answer: According to the coded text above, the "
            "three most frequently appeared words are:"}


def fwe_counts(n, vocabulary):
    k = numpy.arange(1, vocabulary + 1)
    counts = (n * (k ** -2.0) / zeta2()).astype(int)
    return {"n": n, "vocabulary": vocabulary, "counts": [int(c) for c in counts if c > 0]}


def score(response, expected):
    numbers = re.findall(r"\d+", response)
    said, wanted = set(response.lower().split()), expected[0].lower().split()
    return {"response": response, "expected": expected,
            "all": sum(one.lower() in response.lower() for one in expected) / len(expected),
            "part": float(any(one.lower() in response.lower() for one in expected)),
            "last_number": float(bool(numbers) and numbers[-1].isdigit() and str(int(numbers[-1])) == expected[0]),
            "words": len(said & set(wanted)) / len(set(wanted))}


SENTENCES = ["It rained.", "A dog barked twice.", "Nobody came.", "The lamp went out.", "We slept."]
NEEDLES = [needle("numbers", "quiet-harbor", "1234567"), needle("numbers", "tall-cedar", "7654321"),
           needle("numbers", "quiet-harbor", "5555555")]
GOLDEN = {
    "passkey": [passkey(length, seed) for length in (300, 550, 1000, 32000, 120000) for seed in range(10)],
    "needle": [haystack_prompt("It rained.\n\nNobody came. ", "Who came?")],
    "lines": [lines([["torpid-kid", "2416"], ["frail-chinchilla", "19757"], ["teeny-tiny-weight", "7"]], i) for i in range(3)],
    "topics": [topics(["USER: one. \n ASSISTANT: yes", "USER: two."], "the history of bridges")],
    "niah": [
        niah("niah_single_2", "numbers", "prose", SENTENCES, NEEDLES[:1], [2], ["quiet-harbor"], ["1234567"], True),
        niah("niah_single_2", "numbers", "prose", SENTENCES, NEEDLES[:1], [0], ["quiet-harbor"], ["1234567"], True),
        niah("niah_single_3", "uuids", "prose", SENTENCES, [needle("uuids", "a-b", "0-1")], [5], ["a-b"], ["0-1"], True),
        niah("niah_single_1", "numbers", "noise", [NOISE] * 4, NEEDLES[:1], [3], ["quiet-harbor"], ["1234567"], True),
        niah("niah_multikey_1", "numbers", "prose", SENTENCES, NEEDLES[:2], [1, 1], ["tall-cedar"], ["7654321"], True),
        niah("niah_multivalue", "numbers", "prose", SENTENCES, NEEDLES[::2], [1, 4], ["quiet-harbor"], ["1234567", "5555555"], False),
        niah("niah_multiquery", "numbers", "prose", SENTENCES, NEEDLES[:2], [0, 5], ["quiet-harbor", "tall-cedar"], ["1234567", "7654321"], False),
        niah("niah_multiquery", "numbers", "prose", SENTENCES, NEEDLES, [0, 2, 3], ["a", "b", "c"], ["1", "2", "3"], False),
    ],
    "vt": [vt(["ABCDE", "FGHIJ", "KLMNO", "PQRST", "UVWXY"], "12345", 7, [0, 1, 3, 5, 6])],
    "cwe": [cwe(["oak", "river", "oak", "kettle"], ["oak", "river"])],
    "fwe": [fwe(["...", "abcdef", "...", "uvwxyz"], ["abcdef", "uvwxyz", "ghijkl"])],
    "fwe_counts": [fwe_counts(n, v) for n, v in ((53, 4), (53, 60), (1000, 80), (12345, 2000))],
    "scores": [score(*one) for one in (
        ("The values are 12 and 34.", ["12", "34", "56"]), ("ABCDE fghij", ["abcde", "FGHIJ"]), ("", ["7"]), ("none", ["7"]),
        ("first 12, then <2416>.", ["2416"]), ("2416 and 12", ["2416"]), ("02416", ["2416"]), ("x2416y", ["2416"]),
        ("You should eat a sandwich and sit in the park", ["eat a sandwich and sit in Dolores Park on a sunny day."]),
        ("Eat A Sandwich and sit in dolores park on a sunny day.", ["eat a sandwich and sit in Dolores Park on a sunny day."]))],
}
OUT.parent.mkdir(parents=True, exist_ok=True)
OUT.write_text(json.dumps(GOLDEN, indent=1) + "\n")
print(OUT, OUT.stat().st_size)
