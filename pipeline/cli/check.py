"""`resadapt check`: the doctor."""

import asyncio

import typer

from allocator_engine.check import Finding
from pipeline.cli.options import EXIT_FAILED, SiteFile
from pipeline.cli.output import Output, set_up, shown, warn
from pipeline.clock import SystemClock
from pipeline.config.site import load_site, read_yaml
from pipeline.errors import ConfigError
from pipeline.redact import scrub
from pipeline.service.doctor import examine
from pipeline.service.plan import running_needs, warnings_of
from pipeline.service.unnamed import require_mllm_or_yard

EXAMPLE = "Example: resadapt check -c site.yaml"


def check(config: SiteFile) -> None:
    """The doctor: try every stream, the MLLM, the allocator, every sink and the store of a site file, one line each."""
    set_up("error")
    console, site = Output(), load_site(config)
    findings = asyncio.run(examine(site, SystemClock()))
    try:
        require_mllm_or_yard(read_yaml(config), site)
    except ConfigError as error:
        findings.append(Finding("who answers", False, str(error)))
    for finding in findings:
        mark = "[green]ok  [/]" if finding.healthy else "[red]FAIL[/]"
        console.print(
            f"{mark} {shown(finding.what):<24} {shown(scrub(finding.detail))}", highlight=False, soft_wrap=True
        )
    warn(warnings_of(running_needs(site)))
    if not all(finding.healthy for finding in findings):
        raise typer.Exit(EXIT_FAILED)
