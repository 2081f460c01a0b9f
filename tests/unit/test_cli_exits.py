"""One exit code and one line per error."""

import inspect
import subprocess
import sys

import pytest

from rtpfanout import errors
from rtpfanout.cli import exits

CODES = {
    "RtpFanoutError": 1,
    "AlreadyExistsError": 1,
    "LimitError": 1,
    "ConfigError": 2,
    "StartError": 2,
    "InvalidArgumentError": 2,
    "NotFoundError": 3,
    "UnknownNameError": 3,
    "AbortedError": 1,
    "UnimplementedError": 1,
    "UnreachableError": 4,
    "UnavailableError": 4,
    "AddressDeniedError": 5,
    "PermissionDeniedError": 5,
    "UnauthenticatedError": 5,
    "RefusedError": 1,
    "NotKnownError": 1,
    "PreconditionError": 1,
    "StreamRefusedError": 4,
}


def error_classes():
    return {
        name: kind
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, Exception)
    }


def test_every_error_has_a_documented_exit_code():
    assert set(error_classes()) == set(CODES)


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_errors_end_the_command_with_their_code_and_line(name, code, capsys):
    def fail():
        raise error_classes()[name]("no good; try another", field="ssrc")

    with pytest.raises(SystemExit) as ended:
        exits.run_cli(fail)
    assert ended.value.code == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: ssrc: no good; try another\n")


def test_each_problem_of_a_configuration_is_a_line():
    error = errors.ConfigError("a = 1: wrong\nb = 2: wrong")
    assert exits.error_text(error) == "error: a = 1: wrong\nerror: b = 2: wrong"


def test_each_violation_is_a_line():
    violations = (errors.Violation("a[1]", "odd"), errors.Violation("a[2]", "even"))
    error = errors.InvalidArgumentError("two", field="a[1]", violations=violations)
    assert exits.error_text(error) == "error: a[1]: odd\nerror: a[2]: even"


def test_a_reader_that_went_away_is_no_traceback():
    script = (
        "from rtpfanout.cli.exits import run_cli\n"
        "from rtpfanout.cli.output import write\n"
        "import itertools\n"
        "run_cli(lambda: [write(str(n)) for n in itertools.count()])\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert writer.stdout.readline() == b"0\n"
    writer.stdout.close()
    assert writer.stderr.read() == b""
    writer.stderr.close()
    assert writer.wait(20) == exits.BROKEN_PIPE
