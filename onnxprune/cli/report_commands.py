"""Looking at finished runs again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from onnxprune.cli.app import JOB, app, finish
from onnxprune.cli.options import AsJson


@app.command(rich_help_panel=JOB)
def report(
    run: Annotated[
        Path, typer.Argument(help="Folder that compress or search wrote.", show_default=False)
    ],
    *,
    compare: Annotated[
        Path | None, typer.Option("--compare", help="Another run, to set beside it.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the page (HTML) there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the report of a finished run again, alone or beside another run's.

    Example: onnxprune report runs/lenet5 --compare runs/lenet5-smaller -o comparison.html
    """
    from onnxprune import past_run
    from onnxprune.files import write_text
    from onnxprune.html import Comparison, render
    from onnxprune.terminal import show_comparison

    first = past_run.open_past_run(run)
    second = past_run.open_past_run(compare) if compare else None
    rows = past_run.compare(first.report, second.report) if second else ()
    notes = past_run.differences(first, second) if second else ()
    if page:
        html = render(
            first.report,
            recipe=first.recipe.to_yaml(),
            trials=first.trials,
            max_drop=first.recipe.max_drop,
            comparison=Comparison(str(run), str(compare), rows, notes) if second else None,
        )
        write_text(page, html)
    if second is None:
        finish(first.report, as_json=as_json)
    elif as_json:
        document = {"runs": [first.report.to_dict(), second.report.to_dict()], "notes": list(notes)}
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    else:
        show_comparison(str(run), str(compare), rows, notes)
