"""``heptapod ablate``."""

from __future__ import annotations

import importlib.util

import tyro

from heptapod.tools.ablation.report import write_report
from heptapod.tools.ablation.run import check_same, collect, run_study
from heptapod.tools.ablation.study import Study, all_runs, load_study, study_names
from heptapod.utils.config import to_yaml
from heptapod.utils.logging import say

USAGE = "usage: heptapod ablate STUDY [--SETTING VALUE ...] [--report] [--print-config]"


def ablate(arguments: list[str]) -> None:
    """Parses arguments, works off a study and writes its report."""
    if not arguments or arguments[0] in ("-h", "--help"):
        _print_help(None)
        return
    name, *overrides = arguments
    if name.startswith("-"):
        raise ValueError(f"a study comes first: {', '.join(study_names())}, or a .yaml file; then {name}")
    flags = {flag for flag in ("--help", "-h", "--report", "--print-config") if flag in overrides}
    study = load_study(name, [argument for argument in overrides if argument not in flags])
    if flags & {"--help", "-h"}:
        _print_help(study)
        return
    if "--print-config" in flags:
        print(to_yaml(study), end="")
        return
    for package in ("matplotlib", "sklearn"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"ablate needs {package}: pip install 'heptapod[evaluation]'")
    if "--report" in flags:
        check_same(study)
    rows = collect(study) if "--report" in flags else run_study(study)
    files = write_report(study, rows)
    say(f"{len(rows)} of {len(all_runs(study))} runs are finished")
    print("\n".join(str(file) for file in files))


def _print_help(study: Study | None) -> None:
    print(
        f"{USAGE}\n\nTrains every combination of head, supervision density, token order and cell distribution that a "
        "study names, at\nequal steps or for equal time, with several seeds; measures the likelihood of held-out "
        "images, the samples against\nreal images at several numbers of sampling steps, and what a linear probe of "
        "every layer knows of the classes.\nWrites results.json, results.csv, pictures and report.md.\n\n"
        f"STUDY is one of {', '.join(study_names())}, or a .yaml file. The same command again goes on where it was "
        "stopped; several\nprocesses may work on one study. --report writes the report of what is finished and stops, "
        "--print-config prints the\nstudy and stops. The settings, with the values of "
        f"{'the study' if study else 'an empty study'}:\n"
    )
    tyro.cli(
        Study,
        default=study or Study(codes="CACHE"),
        prog="heptapod ablate",
        args=["--help"],
        use_underscores=True,
        config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
    )
