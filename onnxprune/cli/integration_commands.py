"""Commands that make other tools know onnxprune."""

from __future__ import annotations

import json
from pathlib import Path

from onnxprune.cli.app import TOOLS, app
from onnxprune.cli.options import Output


@app.command("olive-config", rich_help_panel=TOOLS)
def olive_config(output: Output) -> None:
    """Write Olive's package configuration with onnxprune's pass added.

    Example: onnxprune olive-config -o packages.json, then olive run --config c.json --package-config packages.json
    """
    from onnxprune.errors import RecipeError
    from onnxprune.files import write_text

    try:
        from onnxprune.integrations.olive import package_config
    except ImportError as error:
        msg = (
            f"Olive is not installed here ({error}); install it with pip install 'onnxprune[olive]'"
        )
        raise RecipeError(msg) from error
    write_text(Path(output), json.dumps(package_config(), indent=2) + "\n")
