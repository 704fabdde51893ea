"""Write the outputs of a transcript anew from the real programs: `python record.py FILE...` (Linux, once a
change is meant).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from replay import no_namespaces, read, run_real
from worlds import WORLDS


def main() -> None:
    if reason := no_namespaces():
        raise SystemExit(reason)
    for name in sys.argv[1:]:
        path = Path(name).resolve()
        head = [line for line in path.read_text(encoding="utf-8").splitlines(True) if line.startswith("#")]
        transcript = read(path)
        printed = run_real(WORLDS[transcript.world].script, transcript.steps)
        steps = [
            str(step._replace(output=out, exit_code=code))
            for step, (out, code) in zip(transcript.steps, printed, strict=True)
        ]
        path.write_bytes(("".join(head) + "\n" + "\n".join(steps)).encode())


if __name__ == "__main__":
    main()
