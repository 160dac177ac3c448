"""What `accelerate launch` starts: `nlptrain train` with the words given.

accelerate launch --config_file configs/accelerate/multi_gpu.yaml scripts/train.py CONFIG [key=value ...]
"""

import sys

from nlptrain.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
