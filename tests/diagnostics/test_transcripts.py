"""Every transcript, replayed by the model's tools; and by the real programs, where the machine has them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from replay import TRANSCRIPTS, all_transcripts, difference, no_namespaces, read, run_real
from worlds import WORLDS

from diagnostics import shell
from kubenet_lab.walk.engine import Walk

PATHS = all_transcripts()
NAMES = [str(path.relative_to(TRANSCRIPTS)) for path in PATHS]


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_model_prints_the_transcript(path: Path) -> None:
    transcript = read(path)
    world = WORLDS[transcript.world]
    network = world.build()
    walk = Walk(network)
    wrong = []
    for step in transcript.steps:
        done = shell.run(network, step.where or world.home, step.command, walk=walk)
        wrong.append(difference(step, done.text, done.exit_code, transcript))
    assert not any(wrong), "\n" + "\n".join(filter(None, wrong))


@pytest.mark.kernel
@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_real_tools_print_the_transcript(path: Path) -> None:
    if reason := no_namespaces():
        pytest.skip(reason)
    transcript = read(path)
    printed = run_real(WORLDS[transcript.world].script, transcript.steps)
    assert len(printed) == len(transcript.steps), printed[-1:]
    wrong = [difference(step, *got, transcript) for step, got in zip(transcript.steps, printed, strict=True)]
    assert not any(wrong), "\n" + "\n".join(filter(None, wrong))
