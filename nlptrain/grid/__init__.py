"""Tasks x variants x seeds: `cells` run one at a time, `workers` run many at once, `table` says what came out."""
