"""Options that several commands have, worded once."""

import click

runs_dir_option = click.option(
    "--runs-dir", default="runs", show_default=True, metavar="DIR", help="Where runs lie."
)
data_dir_option = click.option("--data-dir", metavar="DIR", help="Where data sets lie.")
checkpoint_option = click.option(
    "--checkpoint",
    type=click.Choice(["last", "best"]),
    default="last",
    show_default=True,
    help="The weights after the last step, or those best on the validation images.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
