"""TensorBoard: event files in ``RUN/trackers/``, which ``tensorboard --logdir runs`` shows.

A study's runs are in its folder, so TensorBoard shows them under its name. Values are stored as float32.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from minilm.runs.trackers.protocol import TrackedRun


class TensorBoard:
    """The event files of one run. A resumed run adds a file, and TensorBoard joins the files of a folder."""

    def start(self, run: TrackedRun, id: str) -> str:
        self.writer = EventFileWriter(str(run.place))
        if not id:
            self._text("config", "```json\n" + json.dumps(run.config, indent=2, ensure_ascii=False) + "\n```")
            self._text("folder", f"[{run.folder}]({run.link})" + (f", study {run.group}" if run.group else ""))
        return "events"

    def log(self, step: int, values: Mapping[str, float], stage: str) -> None:
        self._add(step, *(Summary.Value(tag=stage + name, simple_value=value) for name, value in values.items()))

    def finish(self, step: int, metrics: Mapping[str, float], figures: Sequence[Path]) -> None:
        self.log(step, metrics, "")
        for figure in figures:
            content = figure.read_bytes()
            width, height = struct.unpack(">II", content[16:24])  # of a PNG's first chunk
            image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=content)
            self._add(step, Summary.Value(tag=f"figures/{figure.stem}", image=image))

    def close(self, finished: bool) -> None:
        self.writer.close()

    def _text(self, name: str, markdown: str) -> None:
        tensor = TensorProto(
            dtype=DT_STRING,
            string_val=[markdown.encode()],
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
        )
        metadata = create_summary_metadata(display_name=name, description="")
        self._add(0, Summary.Value(tag=name, tensor=tensor, metadata=metadata))

    def _add(self, step: int, *values: Summary.Value) -> None:
        self.writer.add_event(Event(step=step, summary=Summary(value=values)))
        self.writer.flush()
