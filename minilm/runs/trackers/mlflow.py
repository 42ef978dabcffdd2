"""MLflow: ``MLFLOW_TRACKING_URI`` names the server or database, ``MLFLOW_EXPERIMENT_NAME`` the experiment.

The study of a run is its tag ``study``, by which MLflow's page groups runs.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from minilm.runs.trackers.protocol import PROJECT, TrackedRun
from minilm.schema import flat, shown

MOST_PARAMETERS, LONGEST_VALUE = 100, 500  # of one request, and characters of a parameter's value


class MLflow:
    """One run. A resumed run has the same id."""

    def start(self, run: TrackedRun, id: str) -> str:
        self.client = MlflowClient()
        if id:
            self.id = id
            self.client.update_run(id, status="RUNNING")
            return id
        tags = {"study": run.group} if run.group else {}
        tags |= {"folder": run.link, "mlflow.note.content": run.link}
        self.id = self.client.create_run(self._experiment(), run_name=run.name, tags=tags).info.run_id
        # MLflow's names have few characters, and labels have any: they are only in the file.
        params = [
            Param(key, shown(value)[:LONGEST_VALUE])
            for key, value in flat(run.config).items()
            if value is not None and re.fullmatch(r"\w+(\.\w+)*", key, re.ASCII)
        ]
        for first in range(0, len(params), MOST_PARAMETERS):
            self.client.log_batch(self.id, params=params[first : first + MOST_PARAMETERS])
        self.client.log_artifact(self.id, str(run.folder / "config.toml"))
        return self.id

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        if found := self.client.get_experiment_by_name(name):
            return str(found.experiment_id)
        try:
            return self.client.create_experiment(name)
        except MlflowException:  # another run of a study was faster
            if found := self.client.get_experiment_by_name(name):
                return str(found.experiment_id)
            raise

    def log(self, step: int, values: Mapping[str, float], stage: str) -> None:
        now = int(time.time() * 1000)  # ms
        metrics = [Metric(stage + name, value, now, step) for name, value in values.items()]
        self.client.log_batch(self.id, metrics=metrics)

    def finish(self, step: int, metrics: Mapping[str, float], figures: Sequence[Path]) -> None:
        self.log(step, metrics, "")
        for figure in figures:
            self.client.log_artifact(self.id, str(figure), "figures")

    def close(self, finished: bool) -> None:
        self.client.set_terminated(self.id, "FINISHED" if finished else "KILLED")
