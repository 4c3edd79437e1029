"""The command line: each command is a file, a few lines over the API.

Progress and messages go to the standard error, results to the standard output. An error is one line and exit code 1;
wrong usage is exit code 2, and an interruption 130. With `--json`, results and errors are one JSON object.
"""

from unlasting.cli._app import app
from unlasting.cli._check import check
from unlasting.cli._demo import demo
from unlasting.cli._doctor import doctor
from unlasting.cli._evaluate import evaluate
from unlasting.cli._predict import predict
from unlasting.cli._rank import rank
from unlasting.cli._report import report
from unlasting.cli._reproduce import reproduce
from unlasting.cli._train import train

__all__ = ["app", "check", "demo", "doctor", "evaluate", "predict", "rank", "report", "reproduce", "train"]
