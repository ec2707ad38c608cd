"""``heptapod ablate``."""

from __future__ import annotations

import importlib.util
import logging

from heptapod.tools.ablation.load import build_study, read_study, study_names
from heptapod.tools.ablation.study import Study, all_runs
from heptapod.utils.arguments import HELP, parse_arguments
from heptapod.utils.config import from_dict, settings, to_yaml
from heptapod.utils.options import Group

logger = logging.getLogger(__name__)
ABOUT = (
    "Trains every combination of head, supervision density, token order and cell distribution of a study, at equal "
    "steps or epochs or for equal time, with several seeds; measures the likelihood of held-out images or of a test "
    "cache, samples against real images at several numbers of sampling steps, copies of training images, and a linear "
    "probe of every layer. Arms may change any setting of the recipe (heads.changes). Reports give means with their "
    "standard error over seeds, and differences from the first arm paired by seed. Writes results.json, results.csv, "
    "figures and report.md. Run the same command again to resume; several processes may work on one study."
)


@settings
class AblateOptions:
    """What else the command does."""

    report: bool = False
    """Write the report of the finished runs and stop."""
    print_config: bool = False
    """Print the resolved study and stop."""


def ablate(arguments: list[str]) -> None:
    """Parses arguments, runs a study and writes its report."""
    names = f"{', '.join(study_names())}, or a .yaml file"
    about = f"{ABOUT}\n\nSTUDY is one of {names}."
    if not arguments or arguments[0] in HELP:
        parse_arguments([Group(AblateOptions), Group(Study)], "ablate STUDY", ["--help"], about)
    name, *rest = arguments
    if name.startswith("-"):
        raise ValueError(f"a study comes first: {names}; then {name}")
    values = read_study(name)
    own, changes = parse_arguments([Group(AblateOptions), Group(Study, values)], f"ablate {name}", rest, about)
    options, study = from_dict(AblateOptions, own, ""), build_study(name, values, changes)
    if options.print_config:
        print(to_yaml(study), end="")
        return
    from heptapod.tools.ablation.report import write_report
    from heptapod.tools.ablation.run import check_same, collect, run_study

    for package in ("matplotlib", "sklearn"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"ablate needs {package}: pip install 'heptapod[evaluation]'")
    if options.report:
        check_same(study)
    rows = collect(study) if options.report else run_study(study)
    files = write_report(study, rows)
    logger.info(f"{len(rows)} of {len(all_runs(study))} runs are finished")
    print("\n".join(str(file) for file in files))
