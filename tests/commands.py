"""The command line in tests."""

from click.testing import CliRunner, Result

from graphc.cli import main


def invoke(*arguments: object) -> Result:
    """`graphc ARGUMENTS...` in this process."""
    return CliRunner().invoke(main, [str(a) for a in arguments])


def succeed(*arguments: object) -> list[str]:
    """The lines on stdout of a command that succeeds and is silent otherwise."""
    result = invoke(*arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout.splitlines()


def fail(*arguments: object, silent: bool = True) -> str:
    """The one line on stderr of a command that fails with status 2; if `silent`, before it wrote anything."""
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == "" or not silent
    assert result.stderr.startswith("graphc: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("graphc: ").rstrip()
