#!/usr/bin/env bash
# From nothing to predictions in minutes: environment, rated sentences, training, evaluation, predictions.
#   scripts/demo.sh                                            three sentences of its own
#   scripts/demo.sh "What a lovely day." "It broke at once."   yours
# What is there already is not made again; delete demo/run to train anew. Everything lies in demo/ and .venv.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
bash "$root/scripts/setup.sh"
cd "$root"
python=".venv/bin/python"
# The weights come from a package; nothing is asked of the Hub.
export HF_HUB_OFFLINE=1

"$python" scripts/demo_data.py demo/data

# results.json is the last thing a run writes.
if [[ -f demo/run/results.json ]]; then
    echo "demo: demo/run is trained already; delete it to train anew"
else
    if [[ -d demo/run ]]; then
        echo "demo: demo/run was not finished; starting over"
        rm -r demo/run
    fi
    "$python" -m nlptrain train configs/demo.yaml
fi
if [[ ! -f demo/evaluation.txt || demo/run/results.json -nt demo/evaluation.txt ]]; then
    "$python" -m nlptrain evaluate demo/run --data demo/data/test.csv > demo/evaluation.part
    mv demo/evaluation.part demo/evaluation.txt
fi
echo "demo: the test sentences, by nlptrain evaluate"
cat demo/evaluation.txt

if (($# == 0)); then
    set -- "The sound is crisp and the battery lasts for days, I love it!" \
        "It stopped working after a week and nobody answers my mails." \
        "Well, that was a waste of a good evening."
fi
"$python" - "$@" > demo/mine.csv <<'PYTHON'
import csv
import sys

csv.writer(sys.stdout, lineterminator="\n").writerows([text] for text in ["text", *sys.argv[1:]])
PYTHON
"$python" -m nlptrain predict demo/run --data demo/mine.csv --output demo/predictions.csv

echo
cat demo/predictions.csv
cat <<'WHERE'

demo/data/             rated sentences and where they come from (README.txt)
demo/run/              the run: config.yaml, results.json, model/
demo/evaluation.txt    its scores on demo/data/test.csv
demo/predictions.csv   the predictions above, for the sentences in demo/mine.csv

The model in any Python program:  transformers.pipeline("text-classification", model="demo/run/model")
Your own sentences:               scripts/demo.sh "first sentence" "second sentence"
WHERE
