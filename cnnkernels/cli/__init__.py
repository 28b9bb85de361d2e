"""The command line: `cnnkernels info | verify | check | train | summary | bench | report | tune | profile`."""

from __future__ import annotations

from typing import Any

import click

from cnnkernels import __version__
from cnnkernels.cli.bench import bench
from cnnkernels.cli.check import check
from cnnkernels.cli.info import info
from cnnkernels.cli.output import INTERRUPTED
from cnnkernels.cli.profile import profile
from cnnkernels.cli.report import report
from cnnkernels.cli.summary import summary
from cnnkernels.cli.train import train
from cnnkernels.cli.tune import tune
from cnnkernels.cli.verify import verify

__all__ = ["main"]


class _Commands(click.Group):
    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            context.exit(INTERRUPTED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="cnnkernels")
def main() -> None:
    """torch's 2-D convolutions and poolings on handwritten CUDA kernels."""


for _command in (info, verify, check, train, summary, bench, report, tune, profile):
    main.add_command(_command)
