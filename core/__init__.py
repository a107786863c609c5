"""What every room may use: errors, layered settings, the workspace, private files. Imports no other room."""

import os

# MLflow and Evidently report their use to hosts of their makers unless this is set before they are imported;
# who wants that exports DO_NOT_TRACK=false. MLflow's report also failed requests of ours, because it changes
# the environment while other threads read it.
os.environ.setdefault("DO_NOT_TRACK", "true")
