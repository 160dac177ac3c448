"""Feed damaged configurations and data files to the program for some seconds: every one is read or refused in words.

    python scripts/fuzz.py SECONDS [SEED]

Exits with 1 at the first input that raises anything else; the input is left in the folder that is printed.
"""

import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from nlptrain.config.load import load, override
from nlptrain.config.schema import DataConfig
from nlptrain.data.load import load_splits
from nlptrain.errors import NlptrainError
from nlptrain.tasks import TaskSpec

ROWS = [("good film", "pos"), ('a "quoted", text', "neg"), ("caf\u00e9\u4e2d", "pos"), ("two words", "neg")] * 5
CONFIG = """task: {name: own, kind: classification, labels: [neg, pos]}
data: {train: a.csv, leakage: drop, clean: [nfc, whitespace]}
model: {name: some/model, dropout: 0.1, head: {hidden: [8], skip: true}}
optim: {name: rmsprop, head_learning_rate: 0.01}
schedule: {name: cosine, warmup: 0.1}
training: {learning_rate: 1e-4, num_train_epochs: 3, save_strategy: epoch}
"""
PIECES = [
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b'"',
    b",",
    b"\t",
    b"\r",
    b"\n",
    b"\n\n",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b"&a ",
]
PIECES += [
    b"*a",
    b"!!python/object/apply:os.system ",
    b"<<: ",
    b"- ",
    b"\\ud800",
    b"\\u0000",
    b"NaN",
    b"1e999",
    b"-1",
    b"'",
]
PIECES += [
    b"\xe2\x80\xa8",
    b"\xc3",
    b"null",
    b"true",
    b"? ",
    b"| ",
    b"> ",
    b"%YAML 1.1\n",
    b"---\n",
    b"9" * 5000,
    b"[" * 2000,
]


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The content after a few random edits."""
    for _ in range(draw.randint(1, 6)):
        at, end = sorted(draw.choices(range(len(content) + 1), k=2))
        end = min(end, at + 20)
        edit = draw.randrange(5)
        if edit == 0:
            content = content[:at] + draw.choice(PIECES) + content[at:]
        elif edit == 1:
            content = content[:at] + content[end:]
        elif edit == 2:
            content = content[:at] + content[at:end] * draw.randint(2, 9) + content[end:]
        elif edit == 3:
            content = content[:at] + bytes(draw.choices(range(256), k=3)) + content[at:]
        else:
            lines = content.split(b"\n")
            draw.shuffle(lines)
            content = b"\n".join(lines)
    return content


def files(folder: Path) -> dict[str, bytes]:
    """Whole data files, by their names."""
    lines = [f'{{"text": "{text}", "label": "{label}"}}'.replace('a "quoted", text', "quoted") for text, label in ROWS]
    table = "".join('"{}",{}\n'.format(text.replace('"', '""'), label) for text, label in ROWS)
    bare = "".join(f"{text}\t{label}\n" for text, label in ROWS)
    return {
        "a.csv": f"text,label\n{table}".encode(),
        "a.tsv": f"text\tlabel\n{bare}".encode(),
        "a.jsonl": "\n".join(lines).encode(),
    }


def attempt(folder: Path, draw: random.Random) -> str:
    """One damaged input; "read" or the code of the refusal."""
    task = TaskSpec("own", "classification", ("text",), labels=draw.choice([None, ("neg", "pos")]))
    try:
        what = draw.choice(["file", "file", "configuration", "setting"])
        if what == "configuration":
            path = folder / "config.yaml"
            path.write_bytes(damaged(CONFIG.encode(), draw))
            load(path)
        elif what == "setting":
            override(damaged(b"training.seed=3", draw).decode(errors="ignore"))
        else:
            name, content = draw.choice(list(files(folder).items()))
            (folder / name).write_bytes(damaged(content, draw))
            encoding = draw.choice(["utf-8", "utf-8", "latin-1", "utf-16", "utf-7", "gb18030"])
            data = DataConfig(train=str(folder / name), encoding=encoding, leakage="drop", empty_text="drop")
            load_splits(task, data, seed=1)
    except NlptrainError as error:
        return error.code
    return "read"


def main() -> int:
    """Fuzz until the time is over."""
    seconds, seed = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    draw, counts, until = random.Random(seed), Counter[str](), time.monotonic() + seconds
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    while time.monotonic() < until:
        try:
            counts[attempt(folder, draw)] += 1
        except Exception:  # noqa: BLE001 - what is looked for
            traceback.print_exc()
            print(f"after {counts.total()} inputs of seed {seed}; the input is in {folder}")
            return 1
    print(f"{counts.total()} inputs, no other error: {dict(counts.most_common())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
