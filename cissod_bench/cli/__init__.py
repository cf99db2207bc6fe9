"""The command line: one small module a command, imported when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, NoReturn

import click

from cissod_bench import __version__
from cissod_bench.cli.common import Output, global_options
from cissod_bench.errors import BenchError, unknown_name

SIGPIPE = 13  # POSIX's number; Windows has no such signal
ONE_VALUE = "an option takes one value: name it once more for the next one, and put patterns ('photos/*.jpg') in quotes"
COMMANDS = {
    "make-splits": "Draw the labelled and unlabelled annotation files of the sub-tasks.",
    "run": "Train a method on a sub-task, score it and write its run folder.",
    "sweep": "Run methods x tasks x seeds as a queue that can be stopped, continued and shared.",
    "report": "Collect runs into the paper's tables, in the terminal and as files.",
    "show": "Look at the boxes of a split before training, or at what a run saw.",
    "demo": "Toy task from nothing to a table: splits, training, scores, report.",
    "evaluate": "Score a predictions file against a split's classes.",
    "predict": "Detect on photographs with a trained run: COCO results and pictures.",
    "export": "Write a run's detector for other programs: mmdet, ONNX, TorchScript, safetensors.",
    "runs": "List, clean, pack and unpack runs.",
    "splits": "List, show, verify, compare, plot, import and export splits.",
    "data": "Check annotation files and images of the sub-tasks; convert labels.",
    "tasks": "List the sub-tasks.",
    "methods": "List the methods.",
    "check-method": "Examine a method, by name or file: is it ready for the tables?",
    "presets": "List the presets (scale) and profiles (constants).",
    "doctor": "Check the installation and print the command that repairs it.",
}


class LazyGroup(click.Group):
    """Knows its commands by name and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command that is called."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"cissod_bench.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Answer an unknown command with near matches."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise unknown_name("command", args[0], COMMANDS, remedy="cissod-bench --help")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="cissod-bench")
@global_options
def main() -> None:
    """Benchmark of class-imbalanced semi-supervised object detection (CI-SSOD).

    Draw the splits, run the baselines and the method, collect majority and minority AP.
    """


def entry() -> NoReturn:
    """Run the command line and end the process with the exit code of ``cissod_bench.errors``."""
    output = Output(for_good=True)
    try:
        code = main.main(standalone_mode=False, obj=output)
    except BenchError as fault:
        output.fault(fault)
        sys.exit(fault.exit_code)
    except click.ClickException as fault:
        fault.show()
        if "unexpected extra argument" in fault.format_message():  # most often a pattern that the shell has expanded
            print(f"  -> {ONE_VALUE}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        print("Stopped by Ctrl-C.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + SIGPIPE)
    except SystemExit as end:
        from cissod_bench.catalogue.python_files import place_in_file

        if place_in_file(end) is None:
            raise
        output.unexpected(end)  # a user's method ends the program: not without a word
        sys.exit(1)
    except Exception as error:
        output.unexpected(error)
        sys.exit(1)
    else:
        sys.exit(code if isinstance(code, int) else 0)
    finally:
        output.release()
