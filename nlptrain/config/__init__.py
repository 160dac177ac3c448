"""The configuration: its sections, how it is read, and what the installed TrainingArguments take."""
