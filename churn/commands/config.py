"""`churn config ...`: the settings themselves."""

from argparse import Namespace

from churn import console
from churn.settings import Settings


def show(settings: Settings, arguments: Namespace) -> int:
    from training.addresses import masked

    console.out.print_json(masked(settings.model_dump_json()))
    return 0
