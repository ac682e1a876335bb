#!/usr/bin/env python3
"""Writes test/golden/tokenizers: small tokenizers of every kind that is read, and what the reference libraries make of
a hard corpus with them.

Run by hand in an environment with `sentencepiece` and `tokenizers`; needs no network. Everything is trained on text
made here from fixed sentences and a fixed seed. corpus.json holds the texts (hexadecimal bytes, some of them invalid
UTF-8); each folder holds the tokenizer's files and expected.json: for each text

  ids      the ids with special tokens in the text read as text
  parsed   the ids with special tokens read as such, where they differ (tokenizer.json only)
  text     the ids decoded, where that is not the text itself (as it was after replacing what is not UTF-8)
  shown    the parsed ids decoded with special tokens shown, where that is not `text` (tokenizer.json only)
"""
import contextlib
import io
import json
import random
import shutil
import tempfile
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = Path(__file__).resolve().parents[2] / "test" / "golden" / "tokenizers"

GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NEMO = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

SENTENCES = """The quick brown fox jumps over the lazy dog, and then it doesn't do anything at all.
Attention inside groups of tokens costs far less than attention over the whole context.
We'll see what they've written; I'm sure you'd agree that it's longer than 1,000,000 tokens.
Der Bär läuft über die Straße, während große Züge äußerst pünktlich fahren.
Où est passé le garçon dont l'œuvre fut jugée très naïve à l'époque ?
El niño pequeño comió piña en España, ¿verdad? ¡Qué maravilla!
Съешь же ещё этих мягких французских булок, да выпей чаю.
Ο καλύτερος τρόπος να μάθεις κάτι είναι να το διδάξεις.
素早い茶色の狐がのろまな犬を飛び越える。カタカナもひらがなもある。
敏捷的棕色狐狸跳过了懒狗，然后什么也没有做。长上下文模型需要更多的注意力。
다람쥐 헌 쳇바퀴에 타고파. 한국어 문장은 띄어쓰기가 있다.
نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر.
דג סקרן שט בים מאוכזב ולפתע מצא חברה.
ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश करने वाले.
เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน
Zażółć gęślą jaźń. Příliš žluťoučký kůň úpěl ďábelské ódy.
def forward(self, x):\n    return self.norm(x + self.attention(x))  # residual
for (int i = 0; i < n; ++i) {\n\tsum += a[i] * b[i];\n}\nreturn sum;
{"name": "value", "list": [1, 2, 3], "nested": {"true": false, "null": null}}
SELECT COUNT(*) FROM tokens WHERE id >= 1024 AND text LIKE '%s';""".replace("\\n", "\n").replace("\\t", "\t").splitlines()


def training_text():
    rng = random.Random(7)
    lines = []
    for _ in range(1500):
        words = rng.choice(SENTENCES).split(" ")
        lines.append(" ".join(words[: rng.randint(3, len(words) + 3)]))
    return lines


def corpus():
    texts = [
        "", " ", "  ", "\n", "\r\n", "\t", "a", " a", "a ", "  a  b   c    d", "\n\n\n", " \n \n", "a\r\nb\r\n\r\nc", "\ttab\t\ttabs",
        "    four\n        eight\n            twelve", "x" + " " * 70 + "y", " " * 33, "\n" * 20 + "end", "trailing   ",
        "\u00a0no\u00a0break\u2003em\u3000ideographic\u180eseparator\u200bzero\u2028line\u2029paragraph\u0085next\u1680ogham",
        "0", "1234567890", "3.14159265358979 1e-5 0xDEADBEEF 12,345.678", "٣٤٥ ४५६ ①②③ ½ ⅷ x² 𝟘𝟙𝟚", "7" * 50,
        "don't DON'T we'll WE'LL I'm you're it's 'tis 'S 'ſ", "e\u0301 vs \u00e9, A\u030a \u00c5 \u212b, ﬁ ﬀ ǆ", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!",
        "👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ☎️ 1️⃣ ❤️‍🔥", "😀" * 12, "\x00\x01\x02\x07\x08\x0b\x0c\x1b[0m\x7f\x80\x9f", "a\x00b\x00",
        "\ufeffBOM \ufffd replacement \ufffe\uffff \U0010ffff \ue000 private", "İstanbul ıI ß ẞ ŉ ΐ Σίσυφος ΣΊΣΥΦΟΣ",
        "नमस्ते क्षत्रिय ฟิสิกส์ မြန်မာ ខ្មែរ བོད་ తెలుగు ಕನ್ನಡ മലയാളം සිංහල ქართული հայերեն አማርኛ ᏣᎳᎩ ᐃᓄᒃᑎᑐᑦ",
        "العربية السَّلامُ عَلَيْكُمْ עִבְרִית ܣܘܪܝܝܐ", "한국어 ᄒ\u1161\u11ab 中文漢字 𠀀𠮷 \U00031350 \U0002ebf0 日本語テキスト ｶﾀｶﾅ ＡＢＣ１２３", "\U00011f02\U0001e4d0 \u1c89\u1c8a \U00010d40\U00010d41 \U0001fae8",
        "ﷺ ㎏ ℌ ① ｆｕｌｌ ﬃ ² ™ … ‥ ―", "a\u0308\u0323 \u1e69 s\u0323\u0307 s\u0307\u0323 \u0344 \u0958",
        "snake_case CamelCase HTTPServer kebab-case SCREAMING_SNAKE x1y2z3 __init__ $var @user #tag C++ <b>",
        "https://example.org/path?query=1&other=%20#frag", "/usr/lib\\windows\\path ~/.config", "!!!???...,,,;;;:::---___***///",
        "def f(x):\n\tif x:\n\t\treturn {'a': [1, 2]}\n\n\nclass A(B):\n    pass\n", "#include <vector>\r\nint main() { return 0; }\r\n",
        "{\"k\": \"v\\n\\u00e9\", \"n\": -1.5e+10}", "▁underline ▁▁ already▁there _", "Ġhello Ċ Ġ", "<0x41><0x0A> <0xE4>", "word" * 40, "ab" * 100, "aaaa" * 32,
        "Supercalifragilisticexpialidocious antidisestablishmentarianism", "Le cœur déçu mais l'âme plutôt naïve", "—“quoted” ‘single’ «guillemets» „low“–dash",
        "<s>", "</s>", "<s>Hello</s>", " <s> Hello </s> world", "<|begin_of_text|>Hello<|eot_id|>", "a<|eot_id|>b <|eot_id|> c<|eot_id|>\n\nd", "<|begin_of_text|><|begin_of_text|>",
        "<|begin_of_text", "<unk>", "<<s>>", "</s></s>\n</s>", "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello </s><s>[INST] More [/INST]",
        "[PAD] padded[PAD]", "<extra> and <extra>s and x<extra>", "a <word> b <word>c d<word> <word>", "Foo FOO foo xfoox  foo  ", "<|left|>  <|left|>x  <|right|>  y<|right|>z", "<long><longer><longest>",
        "".join(SENTENCES), "\n".join(SENTENCES[:6]) + "\n", SENTENCES[9] * 3,
    ]
    rng = random.Random(20)
    pool = list("abc  \n\t'.,<>|_▁Ġ012é\u0301ß漢字の\u200d👍\u00a0İſ") + SENTENCES[8].split("、") + ["<s>", "</s>", "<|eot_id|>", "\r\n", "   ", "'ll", "def "]
    texts += ["".join(rng.choice(pool) for _ in range(rng.randint(2, 60))) for _ in range(24)]
    raw = [t.encode("utf-8") for t in texts]
    raw += [
        b"\xff", b"abc\x80def", b"\xc3", b"\xe4\xb8", b"\xf0\x9f\x91", b"ok \xc0\xaf overlong \xe0\x80\xaf", b"\xed\xa0\x80 surrogate \xed\xbf\xbf",
        b"\xf4\x90\x80\x80 beyond \xf8\x88\x80\x80\x80", b"\xe4\xb8\xad\xe4\xb8 cut \xe4\xb8\xadx", b"latin1: caf\xe9 na\xefve", bytes(range(256)), b"\xf0\x9f\x91\x8d\xf0\x9f",
    ]
    rng = random.Random(21)
    raw += [bytes(rng.choice(b"ab \n\xe4\xb8\xad\xf0\x9f\x91\x8d\xc3\xa9\xff") for _ in range(20)) for _ in range(8)]
    return raw


def dump(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def compact(case):
    return {k: v for k, v in case.items() if v is not None}


CLASSES = r"""\s \S \d \w \W \h [\s\p{L}] [^\s\w] \p{L} \P{L} \p{^N} \p{N} \p{M} \p{P} \p{S} \p{Z} \p{Lu} \p{Ll} \p{Lt} \p{Lm} \p{Lo} \p{Nd}
(?i:s) (?i:k) (?i:i) . [\S\n] [^\r\n\p{L}\p{N}] \x41 \u00e9 \x{1F600} [\x{4e00}-\x{9fff}]""".split()


def character_classes():
    """For each class how many code points it holds, and their sum."""
    found = {}
    for name in CLASSES:
        split = pre_tokenizers.Split(Regex(name), "removed")
        inside = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000 and not split.pre_tokenize_str(chr(c))]
        found[name] = [len(inside), sum(inside)]
    dump(OUT / "classes.json", found)



def sentencepiece_kind(name, texts, config=None, extra=None, **options):
    folder = OUT / name
    folder.mkdir()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(training_text()), model_writer=model, model_type="bpe", minloglevel=2, num_threads=1, **options
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    for file, value in (extra or {}).items():
        dump(folder / file, value)
    if config is not None:
        dump(folder / "tokenizer_config.json", config)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    cases = []
    for raw in texts:
        ids = processor.encode(raw)
        text, plain = processor.decode(ids), raw.decode("utf-8", "replace")
        cases.append(compact({"ids": ids, "text": text if text != plain else None}))
    dump(folder / "expected.json", cases)


def json_kind(name, texts, tokenizer, config=None, rewrite=None):
    folder = OUT / name
    folder.mkdir()
    content = json.loads(tokenizer.to_str())
    if rewrite:
        rewrite(content)
    dump(folder / "tokenizer.json", content)
    if config is not None:
        dump(folder / "tokenizer_config.json", config)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    cases = []
    for raw in texts:
        plain = raw.decode("utf-8", "replace")
        tokenizer.encode_special_tokens = True
        ids = tokenizer.encode(plain, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        parsed = tokenizer.encode(plain, add_special_tokens=False).ids
        text, shown = tokenizer.decode(ids, skip_special_tokens=True), tokenizer.decode(parsed, skip_special_tokens=False)
        cases.append(
            compact(
                {
                    "ids": ids,
                    "parsed": parsed if parsed != ids else None,
                    "text": text if text != plain else None,
                    "shown": shown if shown != text else None,
                }
            )
        )
    dump(folder / "expected.json", cases)


def bpe(pre_tokenizer, decoder, *, vocab=600, alphabet=None, normalizer=None, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder
    special = ["<unk>", "<s>", "</s>"] if model.get("unk_token") else []
    if model.get("byte_fallback"):
        special += [f"<0x{b:02X}>" for b in range(256)]
    tokenizer.train_from_iterator(
        training_text(),
        trainers.BpeTrainer(vocab_size=vocab, special_tokens=special, initial_alphabet=alphabet or [], show_progress=False),
    )
    return tokenizer


def only_added(content, names):
    """Training leaves the byte tokens as added tokens, which no published file has."""
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] in names]


def string_merges(content):
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]


# The chat templates as their models publish them (tokenizer_config.json); Vicuna's and Alpaca's are code in FastChat
# (conversation.py, vicuna_v1.1) and Stanford Alpaca (train.py).
LLAMA2_CHAT = """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""
LLAMA3_CHAT = """{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""
MISTRAL_CHAT = """{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% endif %}{% endfor %}"""


def vicuna(messages, eos_token, **_):
    system = "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions."
    if messages[0]["role"] == "system":
        system, messages = messages[0]["content"], messages[1:]
    seps, text = [" ", eos_token], system + " "
    for i, message in enumerate(messages):
        text += ("USER: ", "ASSISTANT: ")[i % 2] + message["content"] + seps[i % 2]
    return text + ("ASSISTANT:" if len(messages) % 2 else "")


def alpaca(messages, eos_token, **_):
    text = ("Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
            "### Instruction:\n{instruction}\n\n### Response:").format(instruction=messages[0]["content"])
    return text + (messages[1]["content"] + eos_token if len(messages) > 1 else "")


# LongLoRA's supervised-fine-tune.py (PROMPT_DICT). It takes the first where an entry has an input, else the second.
LONGLORA_INPUT = (
    "[INST] <<SYS>>\n"
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe.  Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. Please ensure that your responses are socially unbiased and positive in nature.\n\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering something not correct. If you don't know the answer to a question, please don't share false information.\n"
    "<</SYS>> \n\n {instruction} \n{input} [/INST]"
)
LONGLORA = "[INST]{instruction}[/INST]"


def longlora_chats():
    """As that script does it: the source and source + target are tokenized by themselves, what the first one fills is not
    learned. The messages are the entry as core/data/samples.h makes them of it."""
    tokenizer = Tokenizer.from_file(str(OUT / "json-llama2" / "tokenizer.json"))
    entries = [{"instruction": "What is 2+2?", "output": "It's 4."},
               {"instruction": "Below is a paper.\n漢字 and more\nNow the material ends.\nWhat is it?", "output": "A paper.\n\nYes 👍🏽"},
               {"instruction": "Translate.", "input": "Der Bär läuft", "output": "The bear walks"},
               {"instruction": "Sum up ", "input": "a\n\nb \n", "output": "a, b"}]
    for entry in entries:
        source = (LONGLORA_INPUT if entry.get("input") else LONGLORA).format_map(entry)
        messages = [{"role": "user", "content": entry["instruction"]}, {"role": "assistant", "content": entry["output"]}]
        if entry.get("input"):
            system = LONGLORA_INPUT.split("<<SYS>>\n")[1].split("\n<</SYS>>")[0]
            messages[0]["content"] += " \n" + entry["input"]
            messages.insert(0, {"role": "system", "content": system})
        text = source + entry["output"] + "</s>"
        asked, ids = tokenizer.encode(source).ids, tokenizer.encode(text).ids
        yield {"format": "longlora", "tokenizer": "json-llama2", "entry": entry, "messages": messages, "text": text, "ids": ids,
               "learn": [int(i >= len(asked)) for i in range(len(ids))]}


def chats():
    """chats.json: text, ids and, for answers, which ids are learned, by the places of tokens in the text."""
    import jinja2

    def say(*contents, system=None):
        turns = [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]
        return ([{"role": "system", "content": system}] if system is not None else []) + turns

    talks = [say("Hello"), say("What is 2+2?", "It's 4."), say(" spaces \n", "  kept?\n", "and then", "Ünïcode 漢字 👍🏽"),
             say("Hi", "Yes", "More", system="Be brief."), say("x\n\ny", "\n\nleading newlines", system=" Two\nlines ")]
    formats = {"llama-2": (LLAMA2_CHAT, "json-llama2", "<s>", "</s>"), "llama-3": (LLAMA3_CHAT, "json-llama3", "<|begin_of_text|>", "<|eot_id|>"),
               "mistral": (MISTRAL_CHAT, "json-nemo", "<s>", "</s>"), "vicuna": (vicuna, "json-llama2", "<s>", "</s>"), "alpaca": (alpaca, "json-llama2", "<s>", "</s>")}
    cases = []
    for name, (template, fixture, bos, eos) in formats.items():
        render = template if callable(template) else jinja2.Template(template).render
        tokenizer = Tokenizer.from_file(str(OUT / fixture / "tokenizer.json"))
        for messages in talks:
            turns = [m for m in messages if m["role"] != "system"]
            if (name == "alpaca" and (len(turns) > 2 or turns != messages)) or (name == "mistral" and turns != messages):
                continue
            asks = turns[-1]["role"] == "user"
            text = render(messages=messages, bos_token=bos, eos_token=eos, add_generation_prompt=asks)
            encoding = tokenizer.encode(text, add_special_tokens=callable(template))
            learn = [0] * len(encoding.ids)
            skip = len(messages) - len(turns)
            for i in range(skip + 1, len(messages), 2):  # from the end of what asks for the answer to the answer's end
                begin = len(render(messages=messages[:i], bos_token=bos, eos_token=eos, add_generation_prompt=True))
                end = len(render(messages=messages[: i + 1], bos_token=bos, eos_token=eos, add_generation_prompt=False))
                for k, (first, last) in enumerate(encoding.offsets):
                    learn[k] |= int(first < end and last > begin)
            cases.append({"format": name, "tokenizer": fixture, "messages": messages, "text": text, "ids": encoding.ids, "learn": learn})
    dump(OUT / "chats.json", cases + list(longlora_chats()))


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    texts = corpus()
    dump(OUT / "corpus.json", [raw.hex() for raw in texts])
    character_classes()
    llama = dict(byte_fallback=True, split_digits=True, allow_whitespace_only_pieces=True, normalization_rule_name="identity", remove_extra_whitespaces=False)

    sentencepiece_kind(
        "sentencepiece-llama2", texts, vocab_size=900, character_coverage=0.98, **llama,
        config={"add_bos_token": True, "add_eos_token": False, "tokenizer_class": "LlamaTokenizer",
                "bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False},
                "eos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False},
                "pad_token": None, "model_max_length": 4096},
        extra={"added_tokens.json": {"[PAD]": 900},
               "special_tokens_map.json": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "[PAD]", "unk_token": "<unk>"}},
    )
    # The rules of nmt_nfkc take 240 KB in a model; a few of the same kind show that normalization is done.
    rules = [("\ufb01", "fi"), ("A\u030a", "\u00c5"), ("e\u0301", "\u00e9"), ("\u3000", " "), ("\u00a0", " "), ("\t", " "), ("\n", " "),
             ("\r", " "), ("\u200b", ""), ("\u00b2", "2"), ("\u2026", "..."), ("\uff21", "A"), ("\uff11", "1"), ("\x01", "")]
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):  # the model remembers the file's name
        lines = ["%s\t%s\n" % tuple(" ".join(f"{ord(c):X}" for c in side) for side in rule) for rule in rules]
        Path("rules.tsv").write_text("".join(lines), encoding="utf-8")
        sentencepiece_kind("sentencepiece-normalized", texts, vocab_size=900, character_coverage=0.98, byte_fallback=True, normalization_rule_tsv="rules.tsv")
    sentencepiece_kind("sentencepiece-no-prefix", texts, vocab_size=800, character_coverage=0.98, add_dummy_prefix=False, user_defined_symbols=["<extra>", "def"],
                       **{**llama, "byte_fallback": False}, config={"add_bos_token": False, "legacy": False})

    byte_alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    llama3 = bpe(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(GPT4), "isolated"), byte_level]), decoders.ByteLevel(),
                 alphabet=byte_alphabet, vocab=700, ignore_merges=True)
    llama3.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")])
    llama3.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
                                      special_tokens=[("<|begin_of_text|>", llama3.token_to_id("<|begin_of_text|>"))]),
    ])

    def odd_words(content):  # entries that no merge makes: only ignore_merges finds them
        vocab = content["model"]["vocab"]
        names = {t["content"] for t in content["added_tokens"]}
        for old, new in zip([t for t in reversed(vocab) if t not in names][:3], ["Ġantidisestablishmentarianism", "Ġworld", "Hello"]):
            content["model"]["merges"] = [p for p in content["model"]["merges"] if "".join(p) != old and old not in p]
            vocab[new] = vocab.pop(old)
        string_merges(content)

    json_kind("json-llama3", texts, llama3, rewrite=odd_words,
              config={"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "tokenizer_class": "PreTrainedTokenizerFast",
                      "added_tokens_decoder": {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in json.loads(llama3.to_str())["added_tokens"]}})

    gpt2 = bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel(), alphabet=byte_alphabet,
               continuing_subword_prefix="", end_of_word_suffix="")
    gpt2.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    gpt2.post_processor = processors.ByteLevel(trim_offsets=False)
    json_kind("json-gpt2", texts, gpt2, rewrite=string_merges, config={"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"})

    nemo = bpe(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(NEMO), "isolated"), byte_level]), decoders.ByteLevel(), alphabet=byte_alphabet)
    nemo.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>", "[INST]", "[/INST]")])
    nemo.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", nemo.token_to_id("<s>"))])
    json_kind("json-nemo", texts, nemo, config={"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True})

    fallback = dict(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    chain = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    llama2 = bpe(None, chain, normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), vocab=900, **fallback)
    llama2.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    names = {"<unk>", "<s>", "</s>"}

    def as_published(content):
        only_added(content, names)
        string_merges(content)

    json_kind("json-llama2", texts, llama2, rewrite=as_published, config={"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": False})

    def as_saved_today(content):  # the form without a normalizer
        only_added(content, names)
        content["normalizer"] = None
        content["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}

    json_kind("json-metaspace", texts, llama2, rewrite=as_saved_today)

    # The rest of what the parts can do, in one odd tokenizer each.
    flags = bpe(pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel(), alphabet=byte_alphabet, normalizer=normalizers.NFC())
    flags.add_tokens([AddedToken("foo", single_word=True, normalized=True), AddedToken("<word>", lstrip=True, rstrip=True, normalized=False),
                      AddedToken("<|left|>", lstrip=True, normalized=False), AddedToken("<|right|>", rstrip=True, normalized=False),
                      AddedToken("<long>", normalized=False), AddedToken("<long><longer>", normalized=False), AddedToken("é", normalized=True)])
    flags.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True, lstrip=True, rstrip=True)])
    json_kind("json-flags", texts, flags)

    steps = bpe(pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=True),
                                         pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)]),
                decoders.Metaspace(replacement="▁", prepend_scheme="always"),
                normalizer=normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Strip(),
                                                 normalizers.Replace(Regex(r"\d{4,}+|[^\S\n]{2,}"), "#"), normalizers.Prepend("~")]),
                unk_token="<unk>")
    json_kind("json-steps", texts, steps, rewrite=lambda c: only_added(c, names))

    behaviors = bpe(pre_tokenizers.Sequence([pre_tokenizers.Split("|", "removed"), pre_tokenizers.Split(" ", "merged_with_next"), pre_tokenizers.Split(Regex(r"[.,;:]"), "merged_with_previous"),
                                             pre_tokenizers.Split(Regex(r"[A-Z]"), "contiguous"), pre_tokenizers.Split(Regex(r"\w+|\s"), "removed", invert=True), pre_tokenizers.Digits(),
                                             pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), pre_tokenizers.Split("Ġ", "isolated")]),
                    None or decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 2, 0)]), alphabet=byte_alphabet, normalizer=normalizers.NFKC())
    json_kind("json-behaviors", texts, behaviors)
    chats()
    print(sum(f.stat().st_size for f in OUT.rglob("*") if f.is_file()), "bytes")


if __name__ == "__main__":
    main()
