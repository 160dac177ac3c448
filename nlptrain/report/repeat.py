"""Where the numbers came from, and how to get them again."""

import shlex
from pathlib import Path

from nlptrain.data.sources import DATA_FOLDER
from nlptrain.report.blocks import Block, Cell, Command, Section, Table
from nlptrain.report.facts import RunFacts


def section(facts: RunFacts) -> Section:
    """Environment, commit, and the command that trains the same again."""
    environment = facts.result.environment
    rows: list[list[Cell]] = [
        [name, str(environment[name])] for name in ("python", "platform", "cpus", "processes") if name in environment
    ]
    rows += [[name, str(version)] for name, version in environment.get("packages", {}).items()]
    commit = environment.get("commit")
    rows.append(["commit of nlptrain", str(commit or "not known: it was not run from a checkout")])
    blocks: list[Block] = [Table("Environment", ["what", "value"], rows, wide=True)]
    if commit and str(commit).endswith("-dirty"):
        blocks.append("The checkout had changes that were not committed, so the commit alone does not repeat the run.")
    blocks.append("In the folder where it was run, and with the same versions, this trains it again beside the first:")
    return Section("Environment and how to repeat it", [*blocks, Command(command(facts))])


def command(facts: RunFacts) -> str:
    """One line for a shell."""
    folder = facts.folder.path
    again = folder.with_name(f"{folder.name}-again") if folder.name else Path("again")
    processes = int(facts.result.environment.get("processes", 1))
    start = f"torchrun --nproc_per_node {processes} -m nlptrain" if processes > 1 else "nlptrain"
    words = ["train", str(facts.folder.config), f"training.output_dir={again}"]
    return f"{_data_folder(facts)}{start} {shlex.join(words)}"


def _data_folder(facts: RunFacts) -> str:
    """The variable that named the data, where the configuration does not name them itself."""
    source = Path(str(facts.result.data.get("train", {}).get("source", "")))
    if facts.config.data.train is not None or source.parent.name != facts.config.spec.name:
        return ""
    return f"{DATA_FOLDER}={shlex.quote(str(source.parent.parent))} "
