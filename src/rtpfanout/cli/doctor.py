"""`rtpfanout doctor`: what on this host would lose packets or speed, and what mends it."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rtpfanout.cli.config import load
from rtpfanout.cli.output import Output, OutputFormat, write, write_json
from rtpfanout.errors import ExitCode

if TYPE_CHECKING:
    from rtpfanout.doctor import Finding

SYSCTL_FILE = "/etc/sysctl.d/60-rtpfanout.conf"


def doctor(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="Configuration file, as `serve` takes it.", show_default=False
        ),
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Examine this host: what would lose packets or speed.

    Takes the configuration that `serve` would start with, and changes nothing. Run it as
    the user that runs the server: what the kernel grants differs. Of a server that runs here it
    tells what that really has and lost; in a container, run it there. Exits with 1 if something
    fails; a warning does not fail.
    """
    from rtpfanout.doctor import Level, Running, examine, sysctl_lines
    from rtpfanout.host import Host
    from rtpfanout.supervisor import statefile

    servers = [
        Running(state.pid, state.server_pid, state.bind_address, state.needs_restart)
        for state in statefile.running()
    ]
    findings = examine(load(config).settings, Host(), servers)
    if output is OutputFormat.JSON:
        write_json(_json(findings))
    else:
        _write_report(findings, sysctl_lines(findings))
    if any(finding.level is Level.FAIL for finding in findings):
        raise typer.Exit(ExitCode.FAILURE)


def _json(findings: "list[Finding]") -> dict[str, object]:
    from rtpfanout.doctor import Level, sysctl_lines

    return {
        "findings": list(map(asdict, findings)),
        "sysctl_lines": sysctl_lines(findings),
        **{level.value: sum(f.level is level for f in findings) for level in Level},
    }


def _write_report(findings: "list[Finding]", sysctls: list[str]) -> None:
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        write(f"{finding.level.value.ljust(4)}  {finding.subject.ljust(width)}  {finding.text}")
        remedies = [*finding.commands, *(f"sysctl -w {k}={v}" for k, v in finding.sysctls.items())]
        for command in remedies:
            write(f"      {command}")
    if sysctls:
        write(f"\n# {SYSCTL_FILE}, then: sysctl --system")
        for line in sysctls:
            write(line)
