"""The GLUE card: the nine tasks of several runs beside published figures, and the archive that the benchmark takes."""
