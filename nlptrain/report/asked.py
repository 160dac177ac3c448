"""What was asked for: the task, the model and the way of training, and the whole configuration folded away."""

from nlptrain.config import load as config_file
from nlptrain.report.axes import number
from nlptrain.report.blocks import Block, Cell, Listing, Section, Table
from nlptrain.report.facts import RunFacts

# sections of the configuration that plug a part into a run
PARTS = ("optim", "clipping", "schedule", "embeddings", "refine")


def section(facts: RunFacts) -> Section:
    """A table of the choices that matter, then everything."""
    config, result = facts.config, facts.result
    spec, model, training = config.spec, result.model, config.training
    batch = training.get("per_device_train_batch_size", "the default")
    rows: list[list[Cell]] = [
        ["task", f"{spec.name}, {spec.kind}"],
        ["texts", " + ".join(spec.text)],
        ["selecting metric", f"{spec.primary}, {'higher' if facts.primary.greater_is_better else 'lower'} is better"],
        ["encoder", str(model.get("name", config.model.name))],
        ["architecture", f"{config.model.architecture}, output {config.model.output}"],
        ["parameters", f"{model['parameters']:,}" if "parameters" in model else "unknown"],
        ["tokens of a row at most", str(model.get("max_length", config.data.max_length))],
        ["epochs", _given(training.get("num_train_epochs"))],
        ["learning rate", _given(training.get("learning_rate"))],
        ["rows of a batch", f"{batch} on each of {result.environment.get('processes', 1)} processes"],
        ["accumulation", _given(training.get("gradient_accumulation_steps", 1))],
        ["loss", config.loss_name],
        ["seed", str(result.seed)],
    ]
    rows += [[part, _part(value)] for part in PARTS if (value := getattr(config, part, None)) is not None]
    blocks: list[Block] = [
        Table("Task, model and training", ["choice", "value"], rows, wide=True),
        Listing("The whole configuration", config_file.dump(config)),
    ]
    return Section("What was asked", blocks)


def _given(value: object) -> str:
    return number(value) if isinstance(value, int | float) else "the default" if value is None else str(value)


def _part(value: object) -> str:
    """The settings of a part that are set."""
    settings = value.model_dump(mode="json") if hasattr(value, "model_dump") else {}
    return ", ".join(f"{name} {one}" for name, one in settings.items() if one not in (None, [], {}))
